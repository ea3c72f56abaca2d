package sqlrules_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOwnStatementsNameTheirIsolationLevel checks that production code runs no statement outside of a transaction, where it
// would have the default isolation level, which a database or role may change. At serializable it would fail because of
// others, and have the application's transactions fail. So a pool or a connection is never asked to run a statement, nor
// passed as something that runs statements, nor a Transactor to run a transaction; internal/lazytx does it at read committed.
func TestOwnStatementsNameTheirIsolationLevel(t *testing.T) {
	t.Parallel()
	found := 0
	for _, p := range productionPackages(t) {
		wrong, uses := unleveled(p.files, p.parsed, p.info)
		found += uses
		if p.ImportPath == module+"/internal/lazytx" {
			continue
		}
		for _, w := range wrong {
			if !strings.Contains(w, "doctor/pooler.go") { // asks a given connection who answers, and reads no table
				t.Error(w)
			}
		}
	}
	if found < 100 {
		t.Errorf("found %d uses of pools and connections only", found)
	}
}

func TestUnleveledStatementsAreFound(t *testing.T) {
	t.Parallel()
	const head = `package p
		import ("context"; "github.com/jackc/pgx/v5"; "github.com/jackc/pgx/v5/pgxpool"; "github.com/rocketflow/rocketflow")
		type querier interface { QueryRow(context.Context, string, ...any) pgx.Row }
		type pinger interface { Ping(context.Context) error }
		func read(querier) {}
		func ping(pinger) {}
		func all(...querier) {}
		func f(ctx context.Context, pool *pgxpool.Pool, conn *pgx.Conn, tx pgx.Tx, q querier, transactor rocketflow.Transactor) `
	files := token.NewFileSet()
	from := exported(files, list(t))
	for body, want := range map[string]int{
		`{ pool.QueryRow(ctx, "") }`:                               1,
		`{ _, _ = pool.Exec(ctx, "") }`:                            1,
		`{ _, _ = pool.Query(ctx, "") }`:                           1,
		`{ pool.SendBatch(ctx, nil) }`:                             1,
		`{ _, _ = pool.Begin(ctx) }`:                               1,
		`{ _, _ = conn.Exec(ctx, "") }`:                            1,
		`{ c, _ := pool.Acquire(ctx); c.QueryRow(ctx, "") }`:       1,
		`{ run := pool.Exec; _ = run }`:                            1,
		`{ _ = transactor.Within(ctx, nil) }`:                      1,
		`{ read(pool) }`:                                           1,
		`{ all(q, pool) }`:                                         1,
		`{ read(querier(pool)) }`:                                  1,
		`{ var r querier = pool; _ = r }`:                          1,
		`{ q = conn }`:                                             1,
		`{ _ = struct{ q querier }{pool} }`:                        1,
		`{ _ = struct{ q querier }{q: pool} }`:                     1,
		`{ _ = []querier{pool} }`:                                  1,
		`{ _ = func() querier { return pool } }`:                   1,
		`{ tx.QueryRow(ctx, ""); read(tx); q.QueryRow(ctx, "") }`:  0,
		`{ ping(pool); _ = pool.Ping(ctx); _ = any(pool) }`:        0,
		`{ _, _ = pool.BeginTx(ctx, pgx.TxOptions{}) }`:            0,
		`{ _ = pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{}, nil) }`: 0, // TestTransactionsNameTheirIsolationLevel looks at options
	} {
		parsed, err := parser.ParseFile(files, "p.go", head+body, 0)
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		info := newInfo()
		if _, err := (&types.Config{Importer: from}).Check("p", files, []*ast.File{parsed}, info); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if wrong, _ := unleveled(files, []*ast.File{parsed}, info); len(wrong) != want {
			t.Errorf("%s: found %q, want %d", body, wrong, want)
		}
	}
}

const module = "github.com/rocketflow/rocketflow"

// sessions are the types whose statements run outside of a transaction.
var sessions = []string{
	"github.com/jackc/pgx/v5/pgxpool.Pool", "github.com/jackc/pgx/v5/pgxpool.Conn", "github.com/jackc/pgx/v5.Conn", "database/sql.DB", "database/sql.Conn",
}

// statementMethods run statements at the default isolation level. BeginTx has options instead.
var statementMethods = []string{
	"Begin", "Query", "QueryRow", "Exec", "SendBatch", "CopyFrom", "QueryContext", "QueryRowContext", "ExecContext",
}

func isSession(t types.Type) bool {
	pointer, ok := types.Unalias(t).(*types.Pointer)
	return ok && slices.Contains(sessions, named(pointer.Elem()))
}

// named returns the full name of a type, or nothing if it has none.
func named(t types.Type) string {
	n, ok := types.Unalias(t).(*types.Named)
	if !ok || n.Obj().Pkg() == nil {
		return ""
	}
	return n.Obj().Pkg().Path() + "." + n.Obj().Name()
}

// runsStatements reports whether t is an interface of something that runs statements.
func runsStatements(t types.Type) bool {
	if _, ok := t.(*types.TypeParam); ok {
		return false
	}
	i, ok := t.Underlying().(*types.Interface)
	if !ok {
		return false
	}
	for m := range i.Methods() {
		if slices.Contains(statementMethods, m.Name()) {
			return true
		}
	}
	return false
}

// unleveled returns where a session runs a statement or becomes something that runs statements, and how often sessions are
// used at all.
func unleveled(files *token.FileSet, parsed []*ast.File, info *types.Info) (wrong []string, uses int) {
	convert := func(e ast.Expr, to types.Type) {
		if from := info.TypeOf(e); from != nil && to != nil && isSession(from) && runsStatements(to) {
			wrong = append(wrong, fmt.Sprintf("%v: %v becomes a %v: pass lazytx.On(pool)", files.Position(e.Pos()), from, to))
		}
	}
	var results []*types.Tuple // of the functions around the present node
	visit := func(n ast.Node) {
		switch n := n.(type) {
		case *ast.Ident:
			if t := info.TypeOf(n); t != nil && isSession(t) {
				uses++
			}
		case *ast.SelectorExpr:
			s := info.Selections[n]
			if s != nil && n.Sel.Name == "Within" && named(s.Recv()) == module+".Transactor" {
				wrong = append(wrong, fmt.Sprintf("%v: Within takes the database's default isolation level: use lazytx.Within", files.Position(n.Pos())))
			}
			if s != nil && isSession(s.Recv()) && slices.Contains(statementMethods, n.Sel.Name) {
				wrong = append(wrong, fmt.Sprintf("%v: %v.%s takes the database's default isolation level: use lazytx.On(pool)", files.Position(n.Pos()), s.Recv(), n.Sel.Name))
			}
		case *ast.CallExpr:
			if kind := info.Types[n.Fun]; kind.IsType() {
				convert(n.Args[0], kind.Type)
			} else if f, ok := info.TypeOf(n.Fun).(*types.Signature); ok {
				for i, arg := range n.Args {
					convert(arg, parameterAt(f, i, n.Ellipsis.IsValid()))
				}
			}
		case *ast.CompositeLit:
			for i, e := range n.Elts {
				convertElement(info, n, i, e, convert)
			}
		case *ast.AssignStmt:
			if len(n.Lhs) == len(n.Rhs) {
				for i, e := range n.Rhs {
					convert(e, info.TypeOf(n.Lhs[i]))
				}
			}
		case *ast.ValueSpec:
			for _, e := range n.Values {
				if n.Type != nil {
					convert(e, info.TypeOf(n.Type))
				}
			}
		case *ast.ReturnStmt:
			if of := results[len(results)-1]; of.Len() == len(n.Results) {
				for i, e := range n.Results {
					convert(e, of.At(i).Type())
				}
			}
		}
	}
	for _, file := range parsed {
		var open []ast.Node
		ast.Inspect(file, func(n ast.Node) bool {
			if n == nil {
				switch open[len(open)-1].(type) {
				case *ast.FuncDecl, *ast.FuncLit:
					results = results[:len(results)-1]
				}
				open = open[:len(open)-1]
				return true
			}
			open = append(open, n)
			switch f := n.(type) {
			case *ast.FuncDecl:
				results = append(results, info.Defs[f.Name].Type().(*types.Signature).Results())
			case *ast.FuncLit:
				results = append(results, info.TypeOf(f).(*types.Signature).Results())
			}
			visit(n)
			return true
		})
	}
	return wrong, uses
}

// parameterAt returns the type of the parameter that takes an argument.
func parameterAt(f *types.Signature, i int, spread bool) types.Type {
	last := f.Params().Len() - 1
	if f.Variadic() && i >= last {
		t := f.Params().At(last).Type()
		if slice, ok := t.Underlying().(*types.Slice); ok && !spread {
			return slice.Elem()
		}
		return t
	}
	if i > last {
		return nil
	}
	return f.Params().At(i).Type()
}

// convertElement calls convert with the value of an element of a literal.
func convertElement(info *types.Info, literal *ast.CompositeLit, i int, e ast.Expr, convert func(ast.Expr, types.Type)) {
	kv, keyed := e.(*ast.KeyValueExpr)
	value := e
	if keyed {
		value = kv.Value
	}
	of := info.TypeOf(literal).Underlying()
	if p, ok := of.(*types.Pointer); ok { // &T{} within another literal
		of = p.Elem().Underlying()
	}
	switch t := of.(type) {
	case *types.Struct:
		if keyed {
			convert(value, info.TypeOf(kv.Key))
		} else {
			convert(value, t.Field(i).Type())
		}
	case interface{ Elem() types.Type }: // slices, arrays and maps
		convert(value, t.Elem())
	}
}

type pack struct {
	ImportPath, Dir, Export string
	GoFiles                 []string

	files  *token.FileSet
	parsed []*ast.File
	info   *types.Info
}

func newInfo() *types.Info {
	return &types.Info{
		Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{},
		Selections: map[*ast.SelectorExpr]*types.Selection{},
	}
}

// productionPackages returns the packages of the production code with their types.
func productionPackages(t *testing.T) (packages []*pack) {
	t.Helper()
	files := token.NewFileSet()
	all := list(t)
	from := exported(files, all)
	for _, p := range all {
		dir := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if !strings.HasPrefix(p.ImportPath, module) || slices.ContainsFunc(notProduction, func(not string) bool { return dir == not || strings.HasPrefix(dir, not+"/") }) {
			continue
		}
		for _, name := range p.GoFiles {
			parsed, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			p.parsed = append(p.parsed, parsed)
		}
		p.files, p.info = files, newInfo()
		if _, err := (&types.Config{Importer: from}).Check(p.ImportPath, files, p.parsed, p.info); err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	return packages
}

// exported returns an importer of packages that list has returned.
func exported(files *token.FileSet, packages []*pack) types.Importer {
	export := map[string]string{}
	for _, p := range packages {
		export[p.ImportPath] = p.Export
	}
	return importer.ForCompiler(files, "gc", func(path string) (io.ReadCloser, error) { return os.Open(export[path]) })
}

// list returns the packages of the module and those that they import.
func list(t *testing.T) (packages []*pack) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles", "./...")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Stderr = os.Stderr
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for d := json.NewDecoder(strings.NewReader(string(output))); ; {
		p := &pack{}
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}
