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

// file is one migration: the statements below the line "-- +goose Up" of an SQL file, and those below "-- +goose Down".
// {schema} stands for the quoted name of the schema, and {schema_literal} for the same as a string. The schema is also the
// search path, so only the body of a function has to name it.
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

// fill replaces {schema} and {schema_literal}.
func fill(statements, schema string) string {
	literal := "'" + strings.ReplaceAll(quote(schema), "'", "''") + "'"
	return strings.NewReplacer("{schema}", quote(schema), "{schema_literal}", literal).Replace(statements)
}
