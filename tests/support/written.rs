//! Plugins in the text format of WebAssembly, for what no toolchain of these tests makes. The result is the message.

/// A plugin of contract 0.1.0, and what it has beside that: empty for the plainest one.
#[derive(Clone, Copy, Default)]
pub struct Written<'a> {
    /// Imports, modules and instances of the component.
    pub component: &'a str,
    /// Functions of the component that its module calls; they may use the memory of `$memory`.
    pub functions: &'a str,
    /// Those functions as instances: `(with …)`.
    pub with: &'a str,
    /// Imports of the module.
    pub imports: &'a str,
    /// Further items of the module.
    pub items: &'a str,
    /// Locals of `process`, and what `process` does first. `$bytes` is the length of the message.
    pub first: &'a str,
}

/// A plugin whose `process` is async: it waits for the steady clock of WASI 0.3. A message of up to 100 bytes takes a
/// millisecond, one of up to 200 traps after that, and any longer one waits for an hour.
pub fn asynchronous() -> Vec<u8> {
    let plugin = Written {
        component: r#"
            (import "wasi:clocks/monotonic-clock@0.3.0"
                (instance $clock (export "wait-for" (func async (param "how-long" u64)))))"#,
        functions: r#"
            (alias export $clock "wait-for" (func $wait-for))
            (core func $wait-for (canon lower (func $wait-for) async))
            (core func $new-set (canon waitable-set.new))
            (core func $drop-set (canon waitable-set.drop))
            (core func $drop-subtask (canon subtask.drop))
            (core func $join (canon waitable.join))
            (core func $task-return
                (canon task.return (result $answer) (memory $memory "memory") string-encoding=utf8))"#,
        with: r#"(with "async" (instance
            (export "wait-for" (func $wait-for)) (export "new-set" (func $new-set)) (export "drop-set" (func $drop-set))
            (export "drop-subtask" (func $drop-subtask)) (export "join" (func $join))
            (export "task-return" (func $task-return))))"#,
        imports: r#"
            (import "async" "wait-for" (func $wait-for (param i64) (result i32)))
            (import "async" "new-set" (func $new-set (result i32)))
            (import "async" "drop-set" (func $drop-set (param i32)))
            (import "async" "drop-subtask" (func $drop-subtask (param i32)))
            (import "async" "join" (func $join (param i32 i32)))
            (import "async" "task-return" (func $task-return (param i32 i32 i32 i32)))"#,
        items: r#"
            (global $body (mut i32) (i32.const 0))
            (global $bytes (mut i32) (i32.const 0))
            (global $subtask (mut i32) (i32.const 0))
            (global $set (mut i32) (i32.const 0))
            (func (export "callback") (param i32 i32 i32) (result i32)
                (if (i32.gt_u (global.get $bytes) (i32.const 100)) (then unreachable))
                (call $join (global.get $subtask) (i32.const 0))
                (call $drop-subtask (global.get $subtask))
                (call $drop-set (global.get $set))
                ;; `ok(emit(body))`, and the end of the task.
                (call $task-return (i32.const 0) (i32.const 0) (global.get $body) (global.get $bytes))
                (i32.const 0))"#,
        first: r#"
            (global.set $body (local.get $body))
            (global.set $bytes (local.get $bytes))
            (global.set $subtask (i32.shr_u
                (call $wait-for (select (i64.const 3600000000000) (i64.const 1000000)
                    (i32.gt_u (local.get $bytes) (i32.const 200))))
                (i32.const 4)))
            (global.set $set (call $new-set))
            (call $join (global.get $subtask) (global.get $set))
            ;; Wait for this set.
            (return (i32.or (i32.const 2) (i32.shl (global.get $set) (i32.const 4))))"#,
    };
    plugin.build_as("async", r#"async (callback (func $echo "callback"))"#)
}

/// A plugin that throws an exception and catches it in each call. Nobody catches that of a message of more than 100 bytes.
pub fn throwing() -> Vec<u8> {
    let plugin = Written {
        items: "(tag $oops (param i32))",
        first: "
            (if (i32.gt_u (local.get $bytes) (i32.const 100)) (then (throw $oops (i32.const 1))))
            (drop (block $caught (result i32)
                (try_table (catch $oops $caught) (throw $oops (i32.const 7)))
                unreachable))",
        ..Written::default()
    };
    plugin.build()
}

/// A plugin that takes 64 KiB of its collected heap in each call, and leaves them as garbage. For a message of more than 100 bytes
/// it takes as much a thousand times and keeps it.
pub fn collecting() -> Vec<u8> {
    let plugin = Written {
        items: "
            (type $chunk (array (mut i8)))
            (type $list (struct (field (ref null $list)) (field (ref $chunk))))
            (global $kept (mut (ref null $list)) (ref.null $list))",
        first: "
            (local $rest i32)
            (local.set $rest (select (i32.const 1000) (i32.const 1) (i32.gt_u (local.get $bytes) (i32.const 100))))
            (loop $again
                (global.set $kept (struct.new $list
                    (select (result (ref null $list)) (global.get $kept) (ref.null $list)
                        (i32.gt_u (local.get $bytes) (i32.const 100)))
                    (array.new_default $chunk (i32.const 65536))))
                (local.set $rest (i32.sub (local.get $rest) (i32.const 1)))
                (br_if $again (local.get $rest)))",
        ..Written::default()
    };
    plugin.build()
}

impl Written<'_> {
    /// The plugin's bytes.
    pub fn build(self) -> Vec<u8> {
        self.build_as("", "")
    }

    /// With `process` of this kind, and exported with these options.
    fn build_as(self, kind: &str, options: &str) -> Vec<u8> {
        let Written { component, functions, with, imports, items, first } = self;
        let text = format!(
            r#"(component
                {component}
                (core module $memory
                    (memory (export "memory") 1)
                    (global $free (export "free") (mut i32) (i32.const 64))
                    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                        (global.get $free)
                        (global.set $free (i32.add (global.get $free) (local.get 3)))))
                (core instance $memory (instantiate $memory))
                (type $message (record (field "id" string) (field "body" string) (field "attempt" u32)))
                (type $outcome (variant
                    (case "emit" string) (case "emit-all" (list string)) (case "drop") (case "retry" (option u32)) (case "reject" string)))
                (type $answer (result $outcome (error string)))
                {functions}
                (core module $echo
                    (import "memory" "memory" (memory 1))
                    (import "memory" "free" (global $free (mut i32)))
                    {imports}
                    {items}
                    (func (export "process")
                        (param $id i32) (param i32) (param $body i32) (param $bytes i32) (param i32) (result i32)
                        {first}
                        ;; What was handed over is overwritten by the next call. `ok(emit(body))` is zero but for the text.
                        (global.set $free (i32.const 64))
                        (i32.store (i32.const 24) (local.get $body))
                        (i32.store (i32.const 28) (local.get $bytes))
                        (i32.const 16)))
                (core instance $echo (instantiate $echo (with "memory" (instance $memory)) {with}))
                (type $process (func {kind} (param "message" $message) (result $answer)))
                (func $process (type $process)
                    (canon lift (core func $echo "process") (memory $memory "memory") (realloc (func $memory "realloc")) {options}))
                (component $named
                    (type $a (record (field "id" string) (field "body" string) (field "attempt" u32)))
                    (import "a" (type $message (eq $a)))
                    (type $b (variant
                        (case "emit" string) (case "emit-all" (list string)) (case "drop") (case "retry" (option u32)) (case "reject" string)))
                    (import "b" (type $outcome (eq $b)))
                    (import "c" (func $process {kind} (param "message" $message) (result (result $outcome (error string)))))
                    (export $message-out "message" (type $message))
                    (export $outcome-out "outcome" (type $outcome))
                    (export "process" (func $process)
                        (func {kind} (param "message" $message-out) (result (result $outcome-out (error string))))))
                (instance $processor (instantiate $named
                    (with "a" (type $message)) (with "b" (type $outcome)) (with "c" (func $process))))
                (export "host:plugin/processor@0.1.0" (instance $processor)))"#
        );
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
    }
}
