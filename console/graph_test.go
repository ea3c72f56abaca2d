package console

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/saga"
)

// randomGraph is a definition with some states, each of which is reached, and some transitions and deadlines back and forth.
func randomGraph(r *rand.Rand, states, more int) saga.Graph {
	g := saga.Graph{Name: "order", Version: 1, Transitions: []saga.GraphTransition{{To: "s0", Event: "order.placed"}}}
	name := func(i int) string { return fmt.Sprintf("s%d%s", i, strings.Repeat("_long", i%5)) }
	g.Transitions[0].To = name(0)
	for i := range states {
		g.States = append(g.States, saga.GraphState{Name: name(i), Final: i%7 == 6})
		if i > 0 {
			g.Transitions = append(g.Transitions, saga.GraphTransition{From: name(r.IntN(i)), To: name(i), Event: fmt.Sprintf("event.%d", i)})
		}
	}
	for i := range more {
		t := saga.GraphTransition{From: name(r.IntN(states)), To: name(r.IntN(states)), Event: fmt.Sprintf("more.%d", i)}
		if t.Deadline = i%3 == 0; t.Deadline {
			t.Event = ""
		}
		g.Transitions = append(g.Transitions, t)
	}
	return g
}

// Boxes and labels of a drawing are within it, and cover each other nowhere; each transition has its arrow; and the same graph has the same
// drawing.
func TestDrawing(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		of := randomGraph(r, 1+r.IntN(25), r.IntN(30))
		d := draw(ofDefinition(of))
		if d == nil {
			t.Fatalf("%d: it is not drawn", i)
		}
		if again := draw(ofDefinition(of)); !reflect.DeepEqual(d, again) {
			t.Fatalf("%d: another drawing of the same graph", i)
		}
		type place struct {
			what string
			drawnGround
		}
		var places []place
		if len(d.Boxes) != len(of.States)+1 {
			t.Errorf("%d: %d boxes of %d states", i, len(d.Boxes), len(of.States))
		}
		for _, b := range d.Boxes {
			places = append(places, place{b.Title, drawnGround{b.X, b.Y, b.Width, b.Height}})
		}
		kinds := map[[2]string]bool{}
		for _, e := range of.Transitions {
			kinds[[2]string{e.From, e.To}] = true
		}
		if len(d.Arrows) != len(kinds) {
			t.Errorf("%d: %d arrows between %d pairs", i, len(d.Arrows), len(kinds))
		}
		labels := 0
		for _, a := range d.Arrows {
			labels += len(a.Labels)
			places = append(places, place{a.Labels[0].Title, a.Ground})
		}
		if labels < len(kinds) {
			t.Errorf("%d: %d labels of %d arrows", i, labels, len(kinds))
		}
		for j, p := range places {
			if p.X < 0 || p.Y < 0 || p.X+p.Width > d.Width || p.Y+p.Height > d.Height {
				t.Errorf("%d: %s is outside of %dx%d: %+v", i, p.what, d.Width, d.Height, p)
			}
			for _, q := range places[:j] {
				if p.X < q.X+q.Width && q.X < p.X+p.Width && p.Y < q.Y+q.Height && q.Y < p.Y+p.Height {
					t.Errorf("%d: %+v covers %+v", i, p, q)
				}
			}
		}
	}
}

// What leads on is below, and a line of states is one line.
func TestDrawingFlowsDown(t *testing.T) {
	t.Parallel()
	of := saga.Graph{Name: "order", Version: 3, States: []saga.GraphState{{Name: "a"}, {Name: "b"}, {Name: "c", Final: true}}, Transitions: []saga.GraphTransition{
		{To: "a"}, {From: "a", To: "b", Event: "one"}, {From: "a", To: "b", Event: "two"}, {From: "b", To: "c", Deadline: true}, {From: "b", To: "nowhere", Event: "three"},
	}}
	d := draw(ofDefinition(of))
	for i := 1; i < len(d.Boxes); i++ {
		if upper, lower := d.Boxes[i-1], d.Boxes[i]; upper.Y+upper.Height >= lower.Y || upper.Middle != lower.Middle {
			t.Errorf("%s is not straight below %s: %+v %+v", lower.Title, upper.Title, lower, upper)
		}
	}
	if len(d.Arrows) != 3 || len(d.Arrows[1].Labels) != 2 || d.Arrows[1].Deadline || !d.Arrows[2].Deadline || d.Arrows[0].Labels[0].Shown != "Begin" {
		t.Errorf("%+v", d.Arrows)
	}
	if !strings.Contains(d.Text, "3 states and 4 transitions") {
		t.Error(d.Text)
	}
	var many saga.Graph
	for i := range maxDrawnStates {
		many.States = append(many.States, saga.GraphState{Name: fmt.Sprint(i)})
	}
	if draw(ofDefinition(many)) != nil {
		t.Error("too many states are drawn")
	}
}

// The recorded transitions make a graph, also where the beginning of some is not among them.
func TestGraphOfHistory(t *testing.T) {
	t.Parallel()
	g := ofHistory("order", []operate.TransitionCount{
		{From: "", To: "open", Cause: "saga.begin", Count: 7}, {From: "lost", To: "open", Cause: "found", Count: 1},
		{From: "open", To: "closed", Cause: "saga.deadline.order", Count: 2}, {From: "open", To: "paid", Cause: "paid", Count: 3},
	})
	var names []string
	for _, s := range g.States {
		names = append(names, s.Name)
	}
	if want := []string{"", "open", "closed", "paid", "lost"}; !slices.Equal(names, want) {
		t.Errorf("the states are %q", names)
	}
	if l := g.States[1].Leads; len(l) != 2 || !l[0].Deadline || l[0].Label() != "deadline" || l[1].Count != 3 || g.States[0].Leads[0].Label() != "Begin" {
		t.Errorf("%+v", g.States)
	}
	if g.Looked != 0 || draw(g) == nil {
		t.Error("it is not drawn, or a part was left out")
	}
	if g := ofHistory("order", []operate.TransitionCount{{To: "open", Count: operate.MaxTransitions}}); g.Looked != operate.MaxTransitions {
		t.Error("nothing says that a part was left out")
	}
	if g := ofHistory("order", nil); len(g.States) != 0 {
		t.Errorf("%+v", g)
	}
}

// FuzzDrawing draws graphs with any names.
func FuzzDrawing(f *testing.F) {
	f.Add("open", "closed", "order.closed", "lost")
	f.Add("", "\u202e", "<script>", strings.Repeat("猫", 200))
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		g := ofHistory(a, []operate.TransitionCount{{To: a, Cause: c}, {From: a, To: b, Cause: d}, {From: b, To: a, Cause: a}, {From: d, To: d, Cause: b}, {From: d, To: c, Cause: c}})
		v := draw(g)
		if v == nil || v.Width <= 0 || v.Height <= 0 {
			t.Fatalf("%+v", v)
		}
		for _, box := range v.Boxes {
			if strings.ContainsAny(box.Shown, "\u202e\x00\n") {
				t.Errorf("%q", box.Shown)
			}
		}
	})
}
