package queries_test

import (
	"testing"

	"github.com/rocketflow/rocketflow/internal/queries"
)

// What is sent begins with the statement's name and has no other comments: neither those after the name nor those that a
// file has before the next one.
func TestParse(t *testing.T) {
	t.Parallel()
	set := queries.Parse(`-- A file's comment.
-- name: First
-- Why it is so.
SELECT a -- the first
FROM {schema}.t

-- Why the second is so.
-- name: Second
-- Only this.
DELETE FROM {schema}.t WHERE k = $1::text
`, `odd"schema`)
	for name, want := range map[string]string{
		"First":  "-- name: First\nSELECT a\nFROM \"odd\"\"schema\".t",
		"Second": "-- name: Second\nDELETE FROM \"odd\"\"schema\".t WHERE k = $1::text",
	} {
		if got := set.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestWithoutComments(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]string{
		"SELECT 1 - -1, 4 / 2":                       "SELECT 1 - -1, 4 / 2",
		"SELECT '--no' /* yes */, 'it''s --no'":      "SELECT '--no' , 'it''s --no'",
		"SELECT \"a--b\", $1 -- c's\n, $2":           "SELECT \"a--b\", $1\n, $2",
		"DO $x$ -- stays\n$x$ -- goes":               "DO $x$ -- stays\n$x$",
		"DO $$ 'a' -- stays $$; -- goes\n\n\nSELECT": "DO $$ 'a' -- stays $$;\nSELECT",
		"-- only":  "",
		"'open --": "'open --",
	} {
		if got := queries.WithoutComments(sql); got != want {
			t.Errorf("%q became %q, want %q", sql, got, want)
		}
	}
}
