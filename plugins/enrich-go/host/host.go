// Package host is what a plugin in Go has from its host: messages, outcomes, configuration, log, and facts.
// Randomness and time come from Go's own packages, math/rand/v2, crypto/rand and time.
package host

import (
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"time"

	wit "go.bytecodealliance.org/pkg/wit/types"
	export "hostplugin/bindings/export_host_plugin_processor"
	"hostplugin/bindings/host_plugin_context"
	wire "hostplugin/bindings/host_plugin_processor"
	"hostplugin/bindings/wasi_config_store"
	"hostplugin/bindings/wasi_logging_logging"
	_ "hostplugin/bindings/wit_exports" // exports the function to the host
)

// Message is a published message.
type Message struct {
	// ID is the `message_id`: the string itself, or the JSON text of a number.
	ID string
	// Body is one JSON object, byte for byte as published.
	Body string
	// Attempt is 1 at first, one more after each retry.
	Attempt uint32
}

// Output is one of several results.
type Output struct {
	// To is the name of an output that the operator has configured; empty for the main output.
	To string
	// Body is the JSON text of an object.
	Body string
}

// Outcome is the decision about a message: Emit, EmitAll, Drop, Retry, RetryAfter or Reject.
type Outcome struct{ wire wire.Outcome }

// Emit is one result for the main output: the JSON text of an object.
func Emit(body string) Outcome { return Outcome{wire.MakeOutcomeEmit(body)} }

// EmitAll is several results, written all at once.
func EmitAll(outputs ...Output) Outcome {
	all := make([]wire.Output, 0, len(outputs))
	for _, output := range outputs {
		to := wit.None[string]()
		if output.To != "" {
			to = wit.Some(output.To)
		}
		all = append(all, wire.Output{To: to, Body: output.Body})
	}
	return Outcome{wire.MakeOutcomeEmitAll(all)}
}

// Drop is no result: the message is filtered out.
func Drop() Outcome { return Outcome{wire.MakeOutcomeDrop()} }

// Retry asks for another attempt; the host chooses the delay.
func Retry() Outcome { return Outcome{wire.MakeOutcomeRetry(wit.None[uint32]())} }

// RetryAfter asks for another attempt after this time.
func RetryAfter(delay time.Duration) Outcome {
	milliseconds := min(max(delay.Milliseconds(), 0), math.MaxUint32)
	return Outcome{wire.MakeOutcomeRetry(wit.Some(uint32(milliseconds)))}
}

// Reject makes the message a dead letter at once, with this reason: the message is wrong.
func Reject(format string, arguments ...any) Outcome {
	return Outcome{wire.MakeOutcomeReject(fmt.Sprintf(format, arguments...))}
}

func init() {
	Handle(func(Message) (Outcome, error) {
		return Outcome{}, errors.New("the plugin has no function: call host.Handle in an init function")
	})
}

// Handle sets the plugin's function. Call Handle in an `init` function.
//
// An error of the function means that the plugin failed; the message is tried again. A panic is such an error too, and
// its stack goes to the log.
func Handle(process func(Message) (Outcome, error)) {
	export.Process = func(message wire.Message) (result wit.Result[wire.Outcome, string]) {
		defer func() {
			if problem := recover(); problem != nil {
				Error("panic: %v\n%s", problem, debug.Stack())
				result = wit.Err[wire.Outcome](fmt.Sprintf("panic: %v", problem))
			}
		}()
		outcome, err := process(Message{ID: message.Id, Body: message.Body, Attempt: message.Attempt})
		if err != nil {
			return wit.Err[wire.Outcome](err.Error())
		}
		return wit.Ok[wire.Outcome, string](outcome.wire)
	}
}

// Config is the value that the operator has set for this key of the plugin's configuration. The values stay the same
// while the plugin runs, so an `init` function may read them.
func Config(key string) (value string, ok bool) {
	result := wasi_config_store.Get(key)
	// The host promises that reading never fails.
	if result.IsErr() || result.Ok().IsNone() {
		return "", false
	}
	return result.Ok().Some(), true
}

// Trace writes a line to the host's log, with the ids of consumer and message.
func Trace(format string, arguments ...any) {
	write(wasi_logging_logging.LevelTrace, format, arguments)
}

// Debug writes a line to the host's log, with the ids of consumer and message.
func Debug(format string, arguments ...any) {
	write(wasi_logging_logging.LevelDebug, format, arguments)
}

// Info writes a line to the host's log, with the ids of consumer and message.
func Info(format string, arguments ...any) { write(wasi_logging_logging.LevelInfo, format, arguments) }

// Warn writes a line to the host's log, with the ids of consumer and message.
func Warn(format string, arguments ...any) { write(wasi_logging_logging.LevelWarn, format, arguments) }

// Error writes a line to the host's log, with the ids of consumer and message.
func Error(format string, arguments ...any) {
	write(wasi_logging_logging.LevelError, format, arguments)
}

// Critical writes a line to the host's log, with the ids of consumer and message.
func Critical(format string, arguments ...any) {
	write(wasi_logging_logging.LevelCritical, format, arguments)
}

func write(level wasi_logging_logging.Level, format string, arguments []any) {
	wasi_logging_logging.Log(level, "", fmt.Sprintf(format, arguments...))
}

// Channel is the Pub/Sub channel of the message.
func Channel() string { return host_plugin_context.Channel() }

// Received is the time at which the host took the message in.
func Received() time.Time { return time.UnixMilli(int64(host_plugin_context.ReceivedMs())) }

// ConsumerID is the id of the consumer.
func ConsumerID() string { return host_plugin_context.ConsumerId() }

// Generation is the number of the plugin's version: 1 at the start of the host, one more after each reload.
func Generation() uint64 { return host_plugin_context.Generation() }
