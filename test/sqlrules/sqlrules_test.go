package sqlrules_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/test/sqlrules"
)

func TestCheckFindsUnqualifiedNames(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"SELECT pg_catalog.count(*), COALESCE(a, 0), now() FROM {schema}.outbox o JOIN {schema}.stream s USING (topic) WHERE a IN (1) AND EXISTS (SELECT FROM {schema}.ack)",
		"WITH e AS (SELECT 1), gone (a, b) AS MATERIALIZED (DELETE FROM {schema}.x RETURNING a, b) SELECT FROM gone, e, pg_catalog.unnest($1::uuid[]) AS h (key, name)",
		"INSERT INTO {schema}.x AS t (a, b) VALUES ($1::text, clock_timestamp()) ON CONFLICT (a) DO UPDATE SET b = excluded.b",
		"SELECT EXTRACT(epoch FROM clock_timestamp() - due_at)::float8, a IS DISTINCT FROM b FROM {schema}.timeout FOR UPDATE SKIP LOCKED",
		"SELECT FROM unnest($1::text[], ARRAY[1, 2]) AS u (a, b)",
		"SELECT FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS u (a, b)",
		"SELECT FROM {schema}.x WHERE ids OPERATOR(pg_catalog.@>) ARRAY[$1::text]",
		"SELECT 'from nowhere' -- count(*) FROM x",
	} {
		if wrong := sqlrules.Check(good, sqlrules.Query); len(wrong) > 0 {
			t.Errorf("%s: %v", good, wrong)
		}
	}
	const index = "CREATE INDEX i ON x USING gin (ids)"
	if wrong := sqlrules.Check(index, sqlrules.Migration); len(wrong) > 0 {
		t.Errorf("%s: %v", index, wrong)
	}
	for bad, want := range map[string]string{
		"SELECT count(*) FROM {schema}.outbox":                     "function count",
		"SELECT a FROM outbox":                                     "table outbox",
		"SELECT a FROM {schema}.x, outbox":                         "table outbox",
		"SELECT a FROM {schema}.x JOIN outbox USING (a)":           "table outbox",
		"UPDATE outbox SET a = 1":                                  "table outbox",
		"INSERT INTO outbox (a) VALUES (1)":                        "table outbox",
		"DELETE FROM \"outbox\"":                                   "table \"outbox\"",
		"SELECT 1 WHERE a < CURRENT_TIMESTAMP":                     "CURRENT_TIMESTAMP",
		"SELECT FROM {schema}.x WHERE a = $1 LIMIT $2::bigint":     "parameter $1",
		"SELECT $1::float8 >= 0":                                   "> 0: an integer beside",
		"SELECT 2 * $1::float8":                                    "2 * $1: an integer beside",
		"SELECT $1::bigint / 1000000.0":                            "bigint / 1000000.0: an integer beside",
		"SELECT 1.5 * $1::bigint":                                  "1.5 * $1: an integer beside",
		"SELECT $1::bigint + $2::float8":                           "bigint + $2: an integer beside",
		"SELECT a::integer < extract(epoch FROM now())":            "integer < extract: an integer beside",
		"SELECT EXTRACT(epoch FROM now()) * 1000000":               "* 1000000: an integer beside",
		"SELECT pg_catalog.now()":                                  "pg_catalog.now()",
		"SELECT FROM {schema}.x WHERE id = ANY (ARRAY(unnest(a)))": "function unnest",
	} {
		if wrong := sqlrules.Check(bad, sqlrules.Query); len(wrong) != 1 || !strings.Contains(wrong[0], want) {
			t.Errorf("%s: found %q, want one thing that says %q", bad, wrong, want)
		}
	}
}

// notProduction are folders whose SQL runs for tests, demos and measurements alone.
var notProduction = []string{
	"bench", "examples", "rocketflowtest", "rocketmqtest", "test/acceptance", "test/chaos", "test/crash", "internal/devstack",
	"test/testbroker", "test/testconsole", "test/servicetest", "internal/pgclock", "internal/pgschema", "test/testdb", "docs", "deploy",
}

// TestProductionSQLQualifiesNamesAndTypesParameters reads all SQL of production code: each .sql file, and the strings in Go
// that begin like a statement.
func TestProductionSQLQualifiesNamesAndTypesParameters(t *testing.T) {
	t.Parallel()
	found := 0
	production(t, func(name, file string) error {
		var wrong []string
		switch {
		case strings.HasSuffix(name, ".sql"):
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			kind := sqlrules.Query
			if path.Dir(name) == "migrations" && path.Base(name) != "queries.sql" {
				kind = sqlrules.Migration
			}
			for _, statement := range strings.Split(string(text), "\n-- name: ") {
				found++
				head, _, _ := strings.Cut(statement, "\n")
				for _, w := range sqlrules.Check("-- name: "+statement, kind) {
					wrong = append(wrong, head+": "+w)
				}
			}
		case strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go"):
			statements, err := inGo(file)
			if err != nil {
				return err
			}
			for _, s := range statements {
				found++
				for _, w := range sqlrules.Check(s.sql, sqlrules.Query) {
					wrong = append(wrong, fmt.Sprintf("line %d: %s", s.line, w))
				}
			}
		}
		for _, w := range wrong {
			t.Errorf("%s: %s", name, w)
		}
		return nil
	})
	if found < 100 {
		t.Errorf("found %d statements only", found)
	}
}

type statement struct {
	line int
	sql  string
}

// begins distinguishes SQL from other strings.
var begins = regexp.MustCompile(`^\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|CREATE|ALTER|DROP|LOCK|SET LOCAL|SET|TRUNCATE|DO|CALL|GRANT|REVOKE|COPY)\s`)

// verb is one of fmt's.
var verb = regexp.MustCompile(`%(\[\d+\])?[sdqv]`)

// inGo returns the statements in a file of Go. What is put into them is {value}.
func inGo(file string) ([]statement, error) {
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, file, nil, 0)
	if err != nil {
		return nil, err
	}
	var found []statement
	ast.Inspect(parsed, func(n ast.Node) bool {
		e, ok := n.(ast.Expr)
		if !ok {
			return true
		}
		text, ok := textOf(e)
		if !ok {
			return true
		}
		if text = verb.ReplaceAllString(text, "{value}"); begins.MatchString(text) {
			found = append(found, statement{files.Position(e.Pos()).Line, text})
		}
		return false
	})
	return found, nil
}

// textOf returns a string of Go, or strings that are put together.
func textOf(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		if e.Op != token.ADD {
			return "", false
		}
		left, leftOK := textOf(e.X)
		right, rightOK := textOf(e.Y)
		if !leftOK && !rightOK {
			return "", false
		}
		if !leftOK {
			left = "{value}"
		}
		if !rightOK {
			right = "{value}"
		}
		return left + right, true
	}
	return "", false
}

// beginApplicationTransactions begin transactions whose isolation level the application chooses.
var beginApplicationTransactions = []string{"outbox/outbox.go", "internal/lazytx/lazytx.go"}

// TestTransactionsNameTheirIsolationLevel checks that production code begins no transaction at the default isolation level,
// which a database or role may change. What reads rows that it waited for must see what their holder did, and gets an error
// above read committed.
func TestTransactionsNameTheirIsolationLevel(t *testing.T) {
	t.Parallel()
	found := 0
	production(t, func(name, file string) error {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || slices.Contains(beginApplicationTransactions, name) {
			return nil
		}
		files := token.NewFileSet()
		parsed, err := parser.ParseFile(files, file, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "pgx" && n.Sel.Name == "BeginFunc" {
					t.Errorf("%v: BeginFunc takes the database's default: use BeginTxFunc with an IsoLevel", files.Position(n.Pos()))
				}
			case *ast.CompositeLit:
				s, ok := n.Type.(*ast.SelectorExpr)
				if !ok || s.Sel.Name != "TxOptions" {
					break
				}
				found++
				if !slices.ContainsFunc(n.Elts, func(e ast.Expr) bool {
					kv, ok := e.(*ast.KeyValueExpr)
					if !ok {
						return false
					}
					key, ok := kv.Key.(*ast.Ident)
					return ok && key.Name == "IsoLevel"
				}) {
					t.Errorf("%v: TxOptions without an IsoLevel take the database's default", files.Position(n.Pos()))
				}
			}
			return true
		})
		return nil
	})
	if found < 3 {
		t.Errorf("found %d transactions only", found)
	}
}

// production calls fn with the files of the production code, by their name in the repository and their path from here.
func production(t *testing.T, fn func(name, file string) error) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if entry.IsDir() {
			if name != "." && (strings.HasPrefix(path.Base(name), ".") || path.Base(name) == "testdata" || slices.Contains(notProduction, name)) {
				return filepath.SkipDir
			}
			return nil
		}
		return fn(name, file)
	})
	if err != nil {
		t.Fatal(err)
	}
}
