// Package export_host_plugin_processor is where the generated code looks for the plugin's function.
package export_host_plugin_processor

import (
	"go.bytecodealliance.org/pkg/wit/types"
	"hostplugin/bindings/host_plugin_processor"
)

// Process is set by the package host.
var Process func(host_plugin_processor.Message) wit_types.Result[host_plugin_processor.Outcome, string]
