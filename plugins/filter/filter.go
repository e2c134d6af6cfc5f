// Passes on the messages that a rule describes, unchanged, and drops all others. The rule comes from the plugin's
// configuration, for example rule = "total > 100 and customer.country = CH". See README.md.
package main

import (
	"errors"
	"fmt"

	"hostplugin/host"
)

// The rule is read once: the configuration stays the same while the plugin runs.
var rule Rule

func process(message host.Message) (host.Outcome, error) {
	if rule.Holds(message.Body) {
		return host.Emit(message.Body), nil
	}
	return host.Drop(), nil
}

func init() {
	text, ok := host.Config("rule")
	err := errors.New("there is no rule; set one, for example: total > 100")
	if ok {
		rule, err = Parse(text)
	}
	if err != nil {
		// The plugin does not start, and the host refuses this version: better than to drop what should stay.
		panic(fmt.Sprintf("plugin_config.rule: %v", err))
	}
	host.Handle(process)
}

// Go wants this function in every program. Nobody calls it in a plugin.
func main() {}
