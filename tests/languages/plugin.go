// The plugin of tests/conformance.rs in Go: the property `do` of a message says what. README.md lists the words.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"time"

	"hostplugin/host"
)

// The tests write another number into the component.
const version = "go-version-1"

// Messages of this instance that asked for its state.
var calls int

var eaten [][]byte

type order struct {
	Do     string
	Name   string
	Key    string
	Result string
	Until  uint32
	Delay  *int64
}

func process(message host.Message) (host.Outcome, error) {
	// Without the value, which encoding/json might refuse.
	var asked order
	for name, field := range map[string]any{
		"do": &asked.Do, "name": &asked.Name, "key": &asked.Key, "result": &asked.Result, "until": &asked.Until,
		"delay": &asked.Delay,
	} {
		if value, ok := host.Property(message.Body, name); ok {
			if err := json.Unmarshal([]byte(value), field); err != nil {
				return host.Outcome{}, err
			}
		}
	}
	value, _ := host.Property(message.Body, "value")
	switch asked.Do {
	case "":
		return emit(map[string]any{"version": version})
	case "echo":
		return host.Emit(message.Body), nil
	case "add":
		body, err := host.AddJSON(message.Body, asked.Name, value)
		return host.Emit(body), err
	case "exact":
		return emit(map[string]any{"text": value})
	case "ordinary":
		var parsed any
		if err := json.Unmarshal([]byte(value), &parsed); err != nil {
			return host.Outcome{}, err
		}
		text, err := json.Marshal(parsed)
		if err != nil {
			return host.Outcome{}, err
		}
		return emit(map[string]any{"text": string(text)})
	case "id":
		return emit(map[string]any{"id": message.ID})
	case "attempt":
		if message.Attempt < asked.Until {
			return retry(asked.Delay), nil
		}
		return emit(map[string]any{"attempt": message.Attempt})
	case "random":
		return emit(map[string]any{"random": fmt.Sprintf("%016x", rand.Uint64())})
	case "many-randoms":
		return manyRandoms()
	case "time":
		return emit(map[string]any{"ms": time.Now().UnixMilli()})
	case "config":
		configured, ok := host.Config(asked.Key)
		if !ok {
			return emit(map[string]any{"value": nil})
		}
		return emit(map[string]any{"value": configured})
	case "context":
		return emit(map[string]any{
			"channel": host.Channel(), "consumer": host.ConsumerID(), "received": host.Received().UnixMilli(),
			"generation": host.Generation(),
		})
	case "log":
		host.Trace("to trace: é😀")
		host.Debug("to debug: é😀")
		host.Info("to %s: é😀", "info")
		host.Warn("to warn: é😀")
		host.Error("to error: é😀")
		host.Critical("to critical: é😀")
		return host.Drop(), nil
	case "print":
		fmt.Println("to stdout: é😀")
		fmt.Fprintln(os.Stderr, "to stderr: é😀")
		return host.Drop(), nil
	case "several":
		return host.EmitAll(host.Output{Body: `{"n": 1}`}, host.Output{Body: `{"n": 2.0}`}), nil
	case "outputs":
		return host.EmitAll(
			host.Output{To: "audit", Body: `{"n": 1}`}, host.Output{Body: `{"n": 2}`},
			host.Output{To: "fraud", Body: `{"n": 3}`}, host.Output{To: "audit", Body: `{"n": 4}`},
		), nil
	case "unknown-output":
		return host.EmitAll(host.Output{To: "nowhere", Body: "{}"}), nil
	case "none":
		return host.EmitAll(), nil
	case "raw":
		return host.Emit(asked.Result), nil
	case "drop":
		return host.Drop(), nil
	case "retry":
		return retry(asked.Delay), nil
	case "reject":
		return host.Reject("asked for: %s", "é😀"), nil
	case "fail":
		return host.Outcome{}, errors.New("asked for: é😀")
	case "throw":
		return broken(), nil
	case "state":
		calls++
		return emit(map[string]any{"calls": calls})
	case "loop":
		for {
		}
	case "eat":
		for {
			eaten = append(eaten, make([]byte, 1<<20))
		}
	}
	return host.Outcome{}, fmt.Errorf("unknown: %s", asked.Do)
}

func emit(result map[string]any) (host.Outcome, error) {
	body, err := json.Marshal(result)
	return host.Emit(string(body)), err
}

func retry(delay *int64) host.Outcome {
	if delay == nil {
		return host.Retry()
	}
	return host.RetryAfter(time.Duration(*delay) * time.Millisecond)
}

func broken() host.Outcome { panic("asked for: é😀") }

func manyRandoms() (host.Outcome, error) {
	const count = 20_000
	different, inside, sum := map[float64]bool{}, true, 0.0
	for range count {
		value := rand.Float64()
		different[value] = true
		inside = inside && value >= 0 && value < 1
		sum += value
	}
	mean := math.Round(sum/count*10) / 10
	return emit(map[string]any{"different": len(different), "inside": inside, "mean": mean})
}

func init() { host.Handle(process) }

func main() {}
