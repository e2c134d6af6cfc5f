package host

import (
	"encoding/json/jsontext"
	"errors"
	"strings"
)

var errNoObject = errors.New("not a JSON object")

// AddProperty is the object with this property, whose value is a string. An existing property of that name gets the new
// value in its old place, otherwise the property is added at the end.
//
// AddProperty works on the text, so every number keeps all digits and every property its place. To read the object with
// encoding/json, change it and write it again would lose both: encoding/json rounds numbers and sorts the names.
func AddProperty(object, name, value string) (string, error) {
	text, err := quote(value)
	if err != nil {
		return "", err
	}
	return AddJSON(object, name, text)
}

// AddJSON is like AddProperty for a value that is JSON text already: a number, an object, the result of json.Marshal.
func AddJSON(object, name, value string) (string, error) {
	start, end, found, empty, err := find(object, name)
	if err != nil {
		return "", err
	}
	if found {
		return object[:start] + value + object[end:], nil
	}
	key, err := quote(name)
	if err != nil {
		return "", err
	}
	comma := ","
	if empty {
		comma = ""
	}
	return object[:end] + comma + key + ":" + value + object[end:], nil
}

// Property is the JSON text of a property of the object. If the name occurs twice, the last one counts.
func Property(object, name string) (value string, ok bool) {
	start, end, found, _, err := find(object, name)
	if err != nil || !found {
		return "", false
	}
	return object[start:end], true
}

func quote(text string) (string, error) {
	quoted, err := jsontext.AppendQuote(nil, text)
	return string(quoted), err
}

// find is where the value of the last property with this name lies, or where the last value of all ends. The host has
// checked that a message is an object, so wrong JSON is only noticed here, not explained.
func find(object, name string) (start, end int, found, empty bool, err error) {
	at := skipBlanks(object, 0)
	if at == len(object) || object[at] != '{' {
		return 0, 0, false, false, errNoObject
	}
	behind := at + 1
	empty = true
	at = skipBlanks(object, behind)
	for at < len(object) && object[at] == '"' {
		key := object[at:skipString(object, at)]
		at = skipBlanks(object, at+len(key))
		if at == len(object) || object[at] != ':' {
			return 0, 0, false, false, errNoObject
		}
		at = skipBlanks(object, at+1)
		behind = skipValue(object, at)
		empty = false
		if isNamed(key, name) {
			start, end, found = at, behind, true
		}
		at = skipBlanks(object, behind)
		if at == len(object) || object[at] != ',' {
			break
		}
		at = skipBlanks(object, at+1)
	}
	if at == len(object) || object[at] != '}' {
		return 0, 0, false, false, errNoObject
	}
	if !found {
		end = behind
	}
	return start, end, found, empty, nil
}

// isNamed says whether the quoted key is this name, with its escapes resolved.
func isNamed(key, name string) bool {
	if !strings.Contains(key, `\`) {
		return len(key) >= 2 && key[1:len(key)-1] == name
	}
	plain, err := jsontext.AppendUnquote(nil, key)
	return err == nil && string(plain) == name
}

func skipBlanks(text string, at int) int {
	for at < len(text) && isBlank(text[at]) {
		at++
	}
	return at
}

func isBlank(char byte) bool { return char == ' ' || char == '\t' || char == '\n' || char == '\r' }

// skipString goes from an opening quote to behind the closing one.
func skipString(text string, at int) int {
	for at++; at < len(text); at++ {
		switch text[at] {
		case '"':
			return at + 1
		case '\\':
			at++
		}
	}
	return len(text)
}

// skipValue goes from the beginning of a value to behind its end.
func skipValue(text string, at int) int {
	depth := 0
	for at < len(text) {
		char := text[at]
		switch {
		case char == '"':
			at = skipString(text, at)
			if depth == 0 {
				return at
			}
			continue
		case depth == 0 && (char == ',' || char == '}' || char == ']' || isBlank(char)):
			return at
		case char == '{' || char == '[':
			depth++
		case char == '}' || char == ']':
			if depth--; depth == 0 {
				return at + 1
			}
		}
		at++
	}
	return at
}
