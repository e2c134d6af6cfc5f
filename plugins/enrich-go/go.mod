module hostplugin

go 1.27

require go.bytecodealliance.org/pkg v0.2.3

// The package that all generated bindings share lies beside them, without the parts that a plugin does not use.
replace go.bytecodealliance.org/pkg => ./bindings/pkg
