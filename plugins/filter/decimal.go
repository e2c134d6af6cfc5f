package main

import (
	"cmp"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// decimal is a number as JSON writes it, to the last digit: 0.digits × 10^exponent. Floating point would call
// 9007199254740993 and 9007199254740992 the same.
type decimal struct {
	sign     int // -1, 0, 1
	digits   string
	exponent int64
}

var numeric = regexp.MustCompile(`^(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([-+]?[0-9]+))?$`)

func parseDecimal(text string) (decimal, bool) {
	parts := numeric.FindStringSubmatch(text)
	if parts == nil {
		return decimal{}, false
	}
	whole, fraction := strings.TrimLeft(parts[2], "0"), parts[3]
	digits := strings.TrimLeft(whole+fraction, "0")
	exponent := int64(len(whole)) - int64(len(whole)+len(fraction)-len(digits))
	digits = strings.TrimRight(digits, "0")
	if digits == "" {
		return decimal{}, true
	}
	if parts[4] != "" {
		// Out of range, ParseInt gives the nearest number that it has.
		power, _ := strconv.ParseInt(parts[4], 10, 64)
		exponent += max(min(power, math.MaxInt64/2), math.MinInt64/2)
	}
	sign := 1
	if parts[1] != "" {
		sign = -1
	}
	return decimal{sign, digits, exponent}, true
}

func (a decimal) compare(b decimal) int {
	if a.sign != b.sign || a.sign == 0 {
		return cmp.Compare(a.sign, b.sign)
	}
	// Without zeros in front, more digits before the point decide; then the digits, from the left.
	size := cmp.Or(cmp.Compare(a.exponent, b.exponent), strings.Compare(a.digits, b.digits))
	return a.sign * size
}
