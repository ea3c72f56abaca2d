package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/doctor"
)

// checkCommand fails the test unless the command line exists, with its flags and arguments.
func checkCommand(t *testing.T, where string, words []string) {
	t.Helper()
	cmd, rest, err := newRoot().Find(words[1:])
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err == nil && cmd.Args != nil {
		err = cmd.Args(cmd, cmd.Flags().Args())
	}
	if err != nil || !cmd.Runnable() || cmd.HasSubCommands() {
		t.Errorf("%s: %q: %v", where, words, err)
		return
	}
	for i, word := range words {
		if cmd.Name() == "doctor" && (word == "--only" || word == "--skip") && words[i+1] != "CODE" {
			named := func(c doctor.Check) bool { return c.Code == words[i+1] || string(c.Group) == words[i+1] }
			if !slices.ContainsFunc(doctor.Checks(), named) {
				t.Errorf("%s: the doctor has no check %s", where, words[i+1])
			}
		}
	}
}

// Each command that the runbook and the alert rules name exists.
func TestRunbookNamesCommandsThatExist(t *testing.T) {
	t.Parallel()
	command := regexp.MustCompile("`(rocketflow [^`]*)`")
	for file, least := range map[string]int{"docs/runbook.md": 40, "deploy/prometheus/rules.yaml": 20} {
		text, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		found := command.FindAllStringSubmatch(string(text), -1)
		if len(found) < least {
			t.Errorf("%s names only %d commands", file, len(found))
		}
		for _, match := range found {
			checkCommand(t, file, strings.Fields(match[1]))
		}
	}
}

// Each command that an explanation may name exists: those in the source of package operate, with any word for what isn't constant.
func TestWhyNamesCommandsThatExist(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../operate/why*.go")
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, file := range files {
		source, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(source, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name, more := "", []string(nil)
			switch fn := call.Fun.(type) {
			case *ast.Ident:
				name = fn.Name
			case *ast.SelectorExpr: // of a member, which adds its schema
				name, more = fn.Sel.Name, []string{"--schema", "x"}
			}
			if name != "command" || call.Ellipsis.IsValid() {
				return true
			}
			var words []string
			for _, arg := range call.Args {
				word := "x"
				if literal, ok := arg.(*ast.BasicLit); ok {
					if word, err = strconv.Unquote(literal.Value); err != nil {
						t.Fatal(err)
					}
				}
				words = append(words, word)
			}
			commands++
			checkCommand(t, file, append(words, more...))
			return true
		})
	}
	if commands < 10 {
		t.Errorf("only %d commands", commands)
	}
}
