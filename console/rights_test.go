package console_test

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/console"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/testconsole"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// documented returns the statements of docs/console.md under a mark, for a role and a schema.
func documented(t *testing.T, mark, role, schema string) []string {
	t.Helper()
	text, err := os.ReadFile("../docs/console.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)<!-- test: " + mark + " -->\n```sql\n(.*?)```").FindSubmatch(text)
	if found == nil {
		t.Fatalf("docs/console.md has no statements %q", mark)
	}
	filled := strings.NewReplacer("rocketflow_console", role, "SCHEMA rocketflow", "SCHEMA "+schema, "rocketflow.", schema+".").Replace(string(found[1]))
	var statements []string
	for s := range strings.SplitSeq(filled, ";") {
		if s = strings.TrimSpace(s); s != "" {
			statements = append(statements, s)
		}
	}
	return statements
}

// limited makes the console work as a role with no rights but the documented ones.
func limited(t *testing.T, service *testconsole.Service, marks ...string) (role string) {
	t.Helper()
	role = testdb.Role(t)
	for _, mark := range marks {
		for _, statement := range documented(t, mark, role, service.Schema) {
			service.Exec(t, statement)
		}
	}
	service.Operator = testoperator.Of(t, operate.Config{Pool: testdb.As(t, service.Pool, role), Schema: service.Schema, Broker: service.Sent})
	return role
}

// All pages can be read by a role with the documented rights for reading, and nothing can be changed.
func TestTheDocumentedGrantsShowAllPages(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	acts := service.Acts(t)
	limited(t, service, "read")
	s := serve(t, console.Config{}, service)
	for _, page := range pages(service) {
		if status, text, _ := s.get(page); status != http.StatusOK {
			t.Errorf("%s: %d %s", page, status, text)
		}
	}
	for _, a := range acts {
		if a.Action == console.Resend || a.Action == console.Resume { // the one changes nothing but the audit, there is no pause for the other
			continue
		}
		form := s.form(a.Form())
		form.Set("reason", "because")
		for name, value := range a.Fill {
			form.Set(name, value)
		}
		if status, text, _ := s.post("act/"+string(a.Action), form); status == http.StatusSeeOther || !strings.Contains(text, "permission denied") {
			t.Errorf("%s: %d %s", a.Action, status, text)
		}
	}
}

// All actions can be done by a role with the documented rights, and each of these is needed.
func TestTheDocumentedGrantsSufficeForActions(t *testing.T) {
	t.Parallel()
	var granted []string // as PRIVILEGE on TABLE
	for _, statement := range documented(t, "act", "x", "x") {
		words := regexp.MustCompile(`(?s)^GRANT (\w+) ON (.*) TO x$`).FindStringSubmatch(statement)
		if words == nil {
			t.Fatalf("%q is not of the form that the test knows", statement)
		}
		for _, table := range regexp.MustCompile(`,\s+`).Split(words[2], -1) {
			granted = append(granted, words[1]+" ON "+strings.TrimPrefix(table, "x."))
		}
	}
	used := func(t *testing.T, revoke string) (failed []string) {
		service := testconsole.New(t, "shop")
		acts := service.Acts(t)
		role := limited(t, service, "read", "act")
		if revoke != "" {
			service.Exec(t, "REVOKE "+strings.Replace(revoke, " ON ", " ON "+service.Schema+".", 1)+" FROM "+role)
		}
		s := serve(t, console.Config{}, service)
		for _, a := range acts {
			form := s.form(a.Form())
			form.Set("reason", "because")
			for name, value := range a.Fill {
				form.Set(name, value)
			}
			status, text, _ := s.post("act/"+string(a.Action), form)
			if done := service.Value(t, a.Done); status != http.StatusSeeOther || done != "true" {
				failed = append(failed, string(a.Action))
				if revoke == "" {
					t.Errorf("%s: %d, done: %s: %s", a.Action, status, done, text)
				}
			}
		}
		return failed
	}
	used(t, "")
	for _, one := range slices.Sorted(slices.Values(granted)) {
		t.Run("without "+one, func(t *testing.T) {
			t.Parallel()
			if failed := used(t, one); len(failed) == 0 {
				t.Error("nothing needs it")
			} else {
				t.Logf("needed by %s", strings.Join(failed, ", "))
			}
		})
	}
}
