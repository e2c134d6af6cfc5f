package main

import (
	"encoding/json/jsontext"
	"fmt"
	"regexp"
	"strings"

	"hostplugin/host"
)

// Rule is one or more conditions, all of which must hold.
type Rule []condition

// condition compares the value at a path with a value of the rule.
type condition struct {
	path     []string
	operator string
	value    value
}

// A path, an operator and a value. A value with blanks, or one that could be read as something else, has quotes.
var form = regexp.MustCompile(`^\s*([^\s=!<>"]+)\s*(=|!=|<=|>=|<|>)\s*("(?:[^"\\]|\\.)*"|[^\s"]+)\s*`)

var and = regexp.MustCompile(`^and\s`)

// Parse reads a rule: PATH OPERATOR VALUE, and further such conditions after the word "and".
func Parse(text string) (Rule, error) {
	var rule Rule
	rest := text
	for {
		parts := form.FindStringSubmatch(rest)
		if parts == nil {
			return nil, fmt.Errorf(`expected a condition such as total > 100, and found %q in the rule %q`, rest, text)
		}
		value, err := literal(parts[3])
		if err != nil {
			return nil, fmt.Errorf("the value %s in the rule %q: %w", parts[3], text, err)
		}
		if parts[2] != "=" && parts[2] != "!=" && value.kind != number && value.kind != str {
			return nil, fmt.Errorf("%s in the rule %q has no order; use = or !=", parts[3], text)
		}
		rule = append(rule, condition{strings.Split(parts[1], "."), parts[2], value})
		rest = rest[len(parts[0]):]
		if rest == "" {
			return rule, nil
		}
		if !and.MatchString(rest) {
			return nil, fmt.Errorf(`expected "and" or the end, and found %q in the rule %q`, rest, text)
		}
		rest = rest[len("and"):]
	}
}

// Holds says whether the JSON object meets every condition.
func (rule Rule) Holds(object string) bool {
	for _, condition := range rule {
		if !condition.holds(object) {
			return false
		}
	}
	return true
}

// holds is false for a message without the property, whatever the operator.
func (condition condition) holds(json string) bool {
	for _, name := range condition.path {
		inner, ok := host.Property(json, name)
		if !ok {
			return false
		}
		json = inner
	}
	found, ok := parse(json)
	if !ok {
		return false
	}
	order, comparable := found.compare(condition.value)
	switch condition.operator {
	case "=":
		return comparable && order == 0
	case "!=":
		return !comparable || order != 0
	case "<":
		return comparable && order < 0
	case "<=":
		return comparable && order <= 0
	case ">":
		return comparable && order > 0
	default:
		return comparable && order >= 0
	}
}

// literal is a value as it stands in a rule. What is not JSON is text: country = CH.
func literal(word string) (value, error) {
	if found, ok := parse(word); ok {
		return found, nil
	}
	if word[0] == '"' {
		return value{}, fmt.Errorf("not a JSON string")
	}
	return value{kind: str, text: word}, nil
}

type kind int

const (
	other kind = iota // true, false, null: equal to themselves, without an order
	str
	number
)

// value is a JSON value that is no object and no array.
type value struct {
	kind    kind
	text    string
	decimal decimal
}

// parse reads JSON text. Objects and arrays are not compared.
func parse(json string) (value, bool) {
	switch {
	case json == "true" || json == "false" || json == "null":
		return value{kind: other, text: json}, true
	case json == "" || json[0] == '{' || json[0] == '[':
		return value{}, false
	case json[0] == '"':
		// A lone surrogate becomes U+FFFD; only broken quotes are no string.
		plain, err := jsontext.AppendUnquote(nil, json)
		return value{kind: str, text: string(plain)}, err == nil || len(plain) > 0
	}
	decimal, ok := parseDecimal(json)
	return value{kind: number, decimal: decimal}, ok
}

// compare gives the order of two values of the same kind: negative, zero or positive.
func (a value) compare(b value) (order int, comparable bool) {
	switch {
	case a.kind != b.kind:
		return 0, false
	case a.kind == number:
		return a.decimal.compare(b.decimal), true
	case a.kind == other && a.text != b.text:
		return 0, false
	}
	return strings.Compare(a.text, b.text), true
}
