// Adds `random_property` to every message and leaves everything else unchanged.
package main

import (
	"fmt"
	"math/rand/v2"

	"hostplugin/host"
)

func process(message host.Message) (host.Outcome, error) {
	random := fmt.Sprintf("%016x", rand.Uint64())
	body, err := host.AddProperty(message.Body, "random_property", random)
	if err != nil {
		return host.Outcome{}, err
	}
	return host.Emit(body), nil
}

func init() { host.Handle(process) }

// Go wants this function in every program. Nobody calls it in a plugin.
func main() {}
