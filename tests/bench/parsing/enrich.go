// `enrich` with the package `encoding/json`, which rounds long numbers and sorts names.
package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"hostplugin/host"
)

func process(message host.Message) (host.Outcome, error) {
	var body map[string]any
	if err := json.Unmarshal([]byte(message.Body), &body); err != nil {
		return host.Outcome{}, err
	}
	body["random_property"] = fmt.Sprintf("%016x", rand.Uint64())
	result, err := json.Marshal(body)
	if err != nil {
		return host.Outcome{}, err
	}
	return host.Emit(string(result)), nil
}

func init() { host.Handle(process) }

// Go wants this function in every program. Nobody calls it in a plugin.
func main() {}
