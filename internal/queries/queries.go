// Package queries reads SQL from .sql files. A file holds statements that each begin with a line "-- name: Name";
// {schema} in them stands for the Postgres schema of rocketflow's tables, which the user chooses.
package queries

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Set holds the statements of a file by name.
type Set map[string]string

// Parse reads a file for a schema. It panics on what no user can cause: a statement without a name, or two with one.
func Parse(file, schema string) Set {
	set := Set{}
	quoted := pgx.Identifier{schema}.Sanitize()
	_, rest, _ := strings.Cut("\n"+file, "\n-- name: ")
	for rest != "" {
		var head string
		head, rest, _ = strings.Cut(rest, "\n-- name: ")
		name, statement, ok := strings.Cut(head, "\n")
		name = strings.TrimSpace(name)
		if _, twice := set[name]; !ok || name == "" || twice {
			panic(fmt.Sprintf("queries: bad or repeated name %q", name))
		}
		set[name] = strings.TrimSpace(strings.ReplaceAll(statement, "{schema}", quoted))
	}
	return set
}

// Get returns a statement. It panics if there is none of that name.
func (s Set) Get(name string) string {
	q, ok := s[name]
	if !ok {
		panic(fmt.Sprintf("queries: no statement %q", name))
	}
	return q
}
