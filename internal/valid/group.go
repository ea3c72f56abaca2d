package valid

import "strings"

// MaxGroup is the maximum length of a group's name in RocketMQ, in bytes.
const MaxGroup = 120

// IsGroup reports whether s can be the name of a consumer group or a producer group.
func IsGroup(s string) bool {
	return s != "" && len(s) <= MaxGroup && strings.IndexFunc(s, func(r rune) bool { return !isGroupRune(r) }) < 0
}

// GroupName returns s, which may be any text such as a URI reference, with a hyphen for each character that a group's name
// can't have.
func GroupName(s string) string {
	return strings.Map(func(r rune) rune {
		if isGroupRune(r) {
			return r
		}
		return '-'
	}, s)
}

func isGroupRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-%|", r)
}
