package console_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/console"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testconsole"
)

// The graph of a saga is drawn by its definition, with the sagas in each state; those in states that it doesn't have are there, too.
func TestGraphOfADefinition(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	graphs := testconsole.Graphs()
	old := graphs[0]
	old.Version, old.States = 0, []saga.GraphState{{Name: "forgotten"}}
	service.Exec(t, `INSERT INTO saga (name, key, version, state, data, revision) VALUES ('order', 'old', 1, 'of_old', '{}', 1)`)
	service.Sagas = append([]saga.Graph{old}, graphs...)
	s := serve(t, console.Config{}, service)
	text := s.want("sagas", "States of order", "as version 2 defines them", "Graph of saga order: 6 states and 8 transitions", "deadline → cancelled", "not in the definition", "1 of another version", "Begin → open")
	if strings.Contains(text, "forgotten") {
		t.Error("an older version is drawn")
	}
	if n := strings.Count(text, "<svg class=\"graph\""); n != 1 {
		t.Errorf("%d drawings", n)
	}
	for state, running := range map[string]string{"awaiting_payment": "23 running", "open": "47 running", "paid": "0 running", "closed": "1 in the last hour"} {
		if !regexp.MustCompile(`<text[^>]*>` + state + `</text><text[^>]*>` + running + `</text>`).MatchString(text) {
			t.Errorf("not %s in %s: %s", running, state, text)
		}
	}
	s.want("saga?service=order&name=order&key=o3", `class="node busy current"`, `awaiting_payment</a> <small>now</small>`)
	if text := s.want("saga?service=order&name=order&key=4711"); strings.Count(text, "current\"") != 1 {
		t.Error("not one current state")
	}
}

// Without a definition the recorded transitions make the graph, whatever text they have.
func TestGraphOfRecordedTransitions(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	for i, to := range []string{testconsole.Hostile, `"></text></svg><b>`, "paid"} {
		service.Exec(t, `INSERT INTO saga_history (name, key, revision, from_state, to_state, cause_type) VALUES ('order', 'h', $1, 'open', $2, $3)`, i+1, to, testconsole.Hostile)
	}
	service.Exec(t, `INSERT INTO saga (name, key, version, state, data, revision) VALUES ('order', 'h', 1, $1, '{}', 1)`, testconsole.Hostile)
	s := serve(t, console.Config{}, service)
	for _, page := range []string{"sagas", "sagas?name=order", "saga?service=order&name=order&key=h"} {
		text := s.want(page, "as its recorded transitions show them", "order.closed → closed", "Graph of saga order: 6 states", "1 running")
		if strings.Contains(text, "<script>") || strings.Contains(text, "<img") || strings.Contains(text, "</svg><b>") || strings.ContainsAny(text, "\u202e\x1b") {
			t.Errorf("%s shows hostile text as it is: %s", page, text)
		}
		if regexp.MustCompile(`\sstyle=|<style`).MatchString(text) {
			t.Errorf("%s has inline code", page)
		}
	}
	if text := s.want("sagas?name=nobody"); strings.Contains(text, "<svg class") || strings.Contains(text, "States of") {
		t.Error("there is a graph of nothing")
	}

	// Of several sagas the page draws the one that is chosen.
	service.Exec(t, `INSERT INTO saga (name, key, version, state, data, revision) VALUES ('cart', 'c', 1, 'full', '{}', 1)`)
	poll.Within(t, 20*time.Second, "the page shows the other saga", func() bool {
		_, text, _ := s.get("sagas")
		return strings.Contains(text, "sagas?name=cart&amp;service=order") && !strings.Contains(text, "<svg class")
	})
	s.want("sagas?name=cart", "States of cart", "full", "1 running")
}
