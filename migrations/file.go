package migrations

import (
	"cmp"
	"embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

//go:embed 0*.sql
var sqlFiles embed.FS

// file is a migration: what follows the line "-- +goose Up" of an SQL file, and what follows "-- +goose Down". {schema} in
// it stands for the quoted name of the schema and {schema_literal} for the same as a string. The schema is also the
// search path, so that a file needn't name it, except in the body of a function.
type file struct {
	version  int64
	name     string
	up, down string
}

// files are all migrations, oldest first.
var files = readFiles()

func readFiles() []file {
	entries, err := sqlFiles.ReadDir(".")
	if err != nil {
		panic(err) // embedded
	}
	var all []file
	for _, e := range entries {
		text, err := sqlFiles.ReadFile(e.Name())
		if err != nil {
			panic(err) // embedded
		}
		number, _, _ := strings.Cut(e.Name(), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		_, body, begun := strings.Cut(string(text), "-- +goose Up\n")
		up, down, ended := strings.Cut(body, "-- +goose Down\n")
		if err != nil || !begun || !ended {
			panic(fmt.Sprintf("migrations: %s is not a numbered file with Up and Down", e.Name()))
		}
		all = append(all, file{version, e.Name(), up, down})
	}
	slices.SortFunc(all, func(a, b file) int { return cmp.Compare(a.version, b.version) })
	return all
}

func fill(statements, schema string) string {
	literal := "'" + strings.ReplaceAll(quote(schema), "'", "''") + "'"
	return strings.NewReplacer("{schema}", quote(schema), "{schema_literal}", literal).Replace(statements)
}
