// Package layers tests that packages import only what their layer allows. The linter's depguard holds the same rules; this
// test needs only the Go tool. It contains only tests.
package layers

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rocketflow/rocketflow"

// siblings don't import each other: the four parts share the root package, and operate works on their tables.
var siblings = []string{"outbox", "handlers", "saga", "timeout", "operate"}

// beneathApp are the packages that app is built of.
var beneathApp = append([]string{"broker", "rocketmq", "metrics", "migrations", "doctor", "internal"}, siblings...)

// onlyIn lists, for each import path, the packages that may import it, as patterns of path.Match without the module.
var onlyIn = []struct {
	imported string
	allowed  []string
}{
	{"github.com/apache/rocketmq-client-go", []string{"rocketmq", "bench", "bench/*"}},
	{"github.com/prometheus", []string{"metrics", "rocketflowfx", "cmd/*", "examples/*", "examples/*/*", "examples/*/*/*"}},
	{"go.uber.org/fx", []string{"rocketflowfx", "rocketflowtest", "test/servicetest", "cmd/*", "examples/*", "examples/*/*", "examples/*/*/*"}},
	// Tests' own helpers live below test, and those for tests of others have names that end in "test".
	{"testing", tests},
	{module + "/broker/brokertest", tests},
	{module + "/test", []string{"test/*", "test/*/*"}},
	{module + "/rocketmqtest", outside},
	{module + "/rocketflowtest", outside},
	{module + "/internal/devstack", outside},
}

var tests = []string{"test/*", "test/*/*", "*test", "*/*test", "*/*/*test"}

// outside lists the packages that are not for production: tools and tests. No other package may depend on the embedded broker
// or on what starts servers, not even indirectly.
var outside = []string{"cmd/rocketflow", "bench", "internal/devstack", "test/*", "test/*/*", "*test", "*/*test", "*/*/*test"}

var forDevelopment = []string{module + "/rocketmqtest", module + "/rocketflowtest", module + "/internal/devstack", "testing"}

func TestPackagesImportOnlyTheirLayers(t *testing.T) {
	t.Parallel()
	for name, p := range packages(t) {
		for _, imported := range p.Imports {
			for _, rule := range onlyIn {
				if within(imported, rule.imported) && !matches(name, rule.allowed) {
					t.Errorf("%s imports %s, which is for %s", name, imported, strings.Join(rule.allowed, ", "))
				}
			}
			for _, sibling := range siblings {
				if within(imported, module+"/"+sibling) && name != sibling && slices.Contains(siblings, name) {
					t.Errorf("%s imports its sibling %s", name, sibling)
				}
			}
			if within(name, "examples") && within(imported, module+"/internal") {
				t.Errorf("%s imports %s: an example can be copied into another module", name, imported)
			}
			if within(imported, module+"/app") && slices.ContainsFunc(beneathApp, func(part string) bool { return within(name, part) }) {
				t.Errorf("%s imports %s, which is built of it", name, imported)
			}
			if within(imported, module) && name == "." {
				t.Errorf("the root package imports %s: it is the vocabulary, which depends on no part", imported)
			}
			if within(imported, module+"/rocketmq") && (slices.Contains(siblings, name) || name == "broker" || name == ".") {
				t.Errorf("%s imports %s: it may know the port, broker/", name, imported)
			}
		}
	}
}

func TestProductionImportsNothingForDevelopmentOrTests(t *testing.T) {
	t.Parallel()
	for name, p := range packages(t) {
		if matches(name, outside) {
			continue
		}
		for _, dependency := range p.Deps {
			if slices.ContainsFunc(forDevelopment, func(prefix string) bool { return within(dependency, prefix) }) {
				t.Errorf("%s depends on %s", name, dependency)
			}
		}
	}
}

// The tests of the packages that hold the promises run under the race detector: .ci/test leaves out those that depend on the RocketMQ
// client, so their files that need a broker have the constraint !race, and their helpers don't import it.
func TestRaceDetectorWatchesThePromises(t *testing.T) {
	t.Parallel()
	for _, part := range append([]string{"doctor"}, siblings...) {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-race", "-test", "-f", `{{if eq .Name "main"}}{{join .Deps "\n"}}{{end}}`, module+"/"+part)
		out, err := cmd.Output()
		if err != nil || len(out) == 0 {
			t.Fatalf("go list: %v", err)
		}
		for dependency := range strings.Lines(string(out)) {
			if within(dependency, "github.com/apache/rocketmq-client-go/v2") {
				t.Errorf("the tests of %s depend on %s with -race, too: they run without the race detector", part, strings.TrimSpace(dependency))
			}
		}
	}
}

// listed is a package without its tests, as `go list` prints it.
type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string // of the imports too, all the way down
}

// packages returns the module's packages by their paths without the module.
func packages(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,Deps", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	found := map[string]listed{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if name == "" {
			name = "."
		}
		found[name] = p
	}
	if len(found) < 10 {
		t.Fatalf("go list found only %d packages", len(found))
	}
	return found
}

func within(imported, prefix string) bool {
	return imported == prefix || strings.HasPrefix(imported, prefix+"/")
}

func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, _ := path.Match(pattern, name) // the patterns are well formed
		return ok
	})
}
