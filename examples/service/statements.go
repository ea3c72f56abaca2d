package service

import (
	"fmt"
	"strings"
)

// Statements are SQL statements by name.
type Statements map[string]string

// ParseStatements reads a file in which each statement follows a line "-- name: Name".
func ParseStatements(file string) Statements {
	all := Statements{}
	for _, part := range strings.Split("\n"+file, "\n-- name: ")[1:] {
		name, statement, _ := strings.Cut(part, "\n")
		all[strings.TrimSpace(name)] = statement
	}
	return all
}

// Get returns a statement. It panics if there is none of that name.
func (s Statements) Get(name string) string {
	statement, ok := s[name]
	if !ok {
		panic(fmt.Sprintf("no statement %q", name))
	}
	return statement
}
