package console

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rocketflow/rocketflow/internal/printable"
)

// Above these numbers, a graph isn't drawn: its table says the same.
const (
	maxDrawnStates = 40
	maxDrawnEdges  = 100
)

// Sizes of a drawing in pixels. Its text has letters of one width.
const (
	letterWidth = 7.3 // of a state's name
	labelWidth  = 6.7 // of a letter of a label
	lineHeight  = 15
	boxHeight   = 42
	rankGap     = 22
	margin      = 10
	loopWidth   = 30
	headLength  = 7
	maxName     = 28 // characters of a name that are shown
	maxLabels   = 4  // of one arrow
)

// drawing is the graph for an SVG.
type drawing struct {
	Width, Height int
	Text          string // in words
	Boxes         []drawnBox
	Arrows        []drawnArrow
}

type drawnBox struct {
	X, Y, Width, Height    int
	Middle, Name, Note     int // where its texts are
	Begin                  bool
	State                  sagaState
	Title, Shown, Counting string
}

type drawnArrow struct {
	Path     string
	Head     string // the points of its head
	Deadline bool   // it is of deadlines alone
	Labels   []drawnLabel
	Ground   drawnGround // of the labels
}

type drawnLabel struct {
	X, Y         int
	Title, Shown string
}

type drawnGround struct{ X, Y, Width, Height int }

// shorten returns text that fits a drawing.
func shorten(s string) string {
	s = printable.Line(s, 300)
	if letters := []rune(s); len(letters) > maxName {
		return string(letters[:maxName-1]) + "…"
	}
	return s
}

// width estimates the width of text.
func width(s string, letter float64) (w float64) {
	for _, r := range s {
		if w += letter; r >= 0x1100 && r != '…' { // wide letters
			w += letter
		}
	}
	return w
}

// arrow is what leads from one state to another.
type arrow struct {
	from, to int
	leads    []sagaLead
}

// draw draws a graph; nil: it has too much for a drawing.
func draw(g *sagaGraph) *drawing {
	index := map[string]int{}
	for i, s := range g.States {
		index[s.Name] = i
	}
	var arrows []*arrow
	named, transitions := 0, 0
	for i, s := range g.States {
		if s.Name != "" {
			named++
		}
		for _, l := range s.Leads {
			to, known := index[l.To]
			if !known { // of a definition that was refused
				continue
			}
			transitions++
			if a := slices.IndexFunc(arrows, func(a *arrow) bool { return a.from == i && a.to == to }); a >= 0 {
				arrows[a].leads = append(arrows[a].leads, l)
				continue
			}
			arrows = append(arrows, &arrow{i, to, []sagaLead{l}})
		}
	}
	if len(g.States) > maxDrawnStates || len(arrows) > maxDrawnEdges {
		return nil
	}
	nodes := make([]node, len(g.States))
	for i, s := range g.States {
		half := max(width(shorten(s.Name), letterWidth), width(s.counting(), labelWidth), 70)/2 + 12
		nodes[i] = node{name: s.Name, left: half, right: half, height: boxHeight}
		if s.Name == "" {
			nodes[i] = node{left: 8, right: 8, height: 16}
		}
	}
	var edges []edge
	var of []*arrow // of each edge
	for _, a := range arrows {
		w, h := a.size()
		if a.from == a.to {
			nodes[a.from].right += loopWidth + w
			nodes[a.from].height = max(nodes[a.from].height, h)
			continue
		}
		edges, of = append(edges, edge{from: a.from, to: a.to, width: w, height: h}), append(of, a)
	}
	l := layOut(nodes, edges)
	top, bottom := l.heights()

	d := &drawing{Height: int(bottom[len(bottom)-1]) + margin}
	for _, n := range l.nodes {
		d.Width = max(d.Width, int(n.x+n.right)+2*margin)
	}
	sides := make([]float64, len(nodes)) // half of the width of each box, without a loop beside it
	for i, s := range g.States {
		n := l.nodes[i]
		sides[i] = n.left
		half := boxHeight / 2.0
		if s.Name == "" {
			half = 8
		}
		middle := (top[n.rank] + bottom[n.rank]) / 2
		b := drawnBox{
			X: int(n.x-n.left) + margin, Y: int(middle - half), Width: int(2 * n.left), Height: int(2 * half), Middle: int(n.x) + margin, Name: int(middle) - 3, Note: int(middle) + 14,
			Begin: s.Name == "", State: s, Title: s.Title(), Shown: shorten(s.Name), Counting: s.counting(),
		}
		if b.Begin {
			b.Name = int(middle)
		}
		d.Boxes = append(d.Boxes, b)
	}
	for _, a := range arrows {
		if a.from == a.to {
			d.Arrows = append(d.Arrows, a.loop(d.Boxes[a.from]))
		}
	}
	ends := l.ports(sides)
	for i, a := range of {
		e := l.edges[i]
		d.Arrows = append(d.Arrows, a.between(l, &e, ends[i], top, bottom, d.Boxes))
	}
	d.Text = fmt.Sprintf("Graph of saga %s: %d states and %d transitions. The table below says the same.", printable.Line(g.Name, 100), named, transitions)
	return d
}

// heights returns the upper and lower side of each rank.
func (l *layered) heights() (top, bottom []float64) {
	y := float64(margin)
	for i, r := range l.ranks {
		if i > 0 {
			y += rankGap
		}
		high := 0.0
		for _, n := range r {
			high = max(high, l.nodes[n].height)
		}
		top, bottom = append(top, y), append(bottom, y+high)
		y += high
	}
	return top, bottom
}

// ports returns where each edge leaves its upper node and meets its lower one: side by side, in the order of where they come from.
func (l *layered) ports(sides []float64) [][2]float64 {
	list := make([][2]float64, len(l.edges))
	type end struct {
		edge int
		side int     // 0: the upper end, 1: the lower one
		next float64 // where the edge comes from
	}
	for n := range l.states {
		for side := range 2 {
			var ends []end
			for i := range l.edges {
				t := l.edges[i].through
				if side == 0 && t[0] == n {
					ends = append(ends, end{i, 0, l.nodes[t[1]].x})
				}
				if side == 1 && t[len(t)-1] == n {
					ends = append(ends, end{i, 1, l.nodes[t[len(t)-2]].x})
				}
			}
			slices.SortStableFunc(ends, func(a, b end) int {
				if a.next < b.next {
					return -1
				}
				if a.next > b.next {
					return 1
				}
				return 0
			})
			step := min(26, 2*sides[n]/float64(len(ends)+1))
			for i, e := range ends {
				list[e.edge][e.side] = l.nodes[n].x + (float64(i)-float64(len(ends)-1)/2)*step
			}
		}
	}
	return list
}

// labels returns the lines beside an arrow.
func (a *arrow) labels() (list []string) {
	for i, l := range a.leads {
		if i == maxLabels-1 && len(a.leads) > maxLabels {
			return append(list, fmt.Sprintf("and %d more", len(a.leads)-i))
		}
		list = append(list, shorten(l.Label()))
	}
	return list
}

func (a *arrow) size() (w, h float64) {
	lines := a.labels()
	for _, l := range lines {
		w = max(w, width(l, labelWidth))
	}
	return w + 8, float64(len(lines)*lineHeight + 4)
}

// drawn returns the arrow with its labels, whose middle is at x and y.
func (a *arrow) drawn(path, head string, x, y float64) drawnArrow {
	d := drawnArrow{Path: path, Head: head, Deadline: !slices.ContainsFunc(a.leads, func(l sagaLead) bool { return !l.Deadline })}
	w, h := a.size()
	d.Ground = drawnGround{int(x - w/2), int(y - h/2), int(w), int(h)}
	for i, line := range a.labels() {
		d.Labels = append(d.Labels, drawnLabel{int(x), int(y-h/2) + (i+1)*lineHeight - 2, a.leads[i].Label(), line})
	}
	return d
}

// loop is the arrow from a state to itself, at the right of its box.
func (a *arrow) loop(b drawnBox) drawnArrow {
	w, _ := a.size()
	x, y := b.X+b.Width, b.Y+b.Height/2
	path := fmt.Sprintf("M%d %dC%d %d %d %d %d %d", x, y+9, x+loopWidth, y+18, x+loopWidth, y-18, x+headLength, y-9)
	head := fmt.Sprintf("%d,%d %d,%d %d,%d", x, y-8, x+headLength, y-13, x+headLength, y-5)
	return a.drawn(path, head, float64(x)+loopWidth-4+w/2, float64(y))
}

// between is the arrow between two states.
func (a *arrow) between(l *layered, e *edge, ends [2]float64, top, bottom []float64, boxes []drawnBox) drawnArrow {
	upper, lower := e.through[0], e.through[len(e.through)-1]
	x, y := ends[0]+margin, float64(boxes[upper].Y+boxes[upper].Height)
	endX, endY := ends[1]+margin, float64(boxes[lower].Y)
	var head string
	if e.up {
		head = fmt.Sprintf("%.1f,%.1f %.1f,%.1f %.1f,%.1f", x, y, x-4, y+headLength, x+4, y+headLength)
		y += headLength
	} else {
		head = fmt.Sprintf("%.1f,%.1f %.1f,%.1f %.1f,%.1f", endX, endY, endX-4, endY-headLength, endX+4, endY-headLength)
		endY -= headLength
	}
	var p strings.Builder
	fmt.Fprintf(&p, "M%.1f %.1f", x, y)
	to := func(nextX, nextY float64) {
		middle := (y + nextY) / 2
		fmt.Fprintf(&p, "C%.1f %.1f %.1f %.1f %.1f %.1f", x, middle, nextX, middle, nextX, nextY)
		x, y = nextX, nextY
	}
	labelX, labelY := 0.0, 0.0
	for _, n := range e.through[1 : len(e.through)-1] {
		v := l.nodes[n]
		to(v.x+margin, top[v.rank])
		if y = bottom[v.rank]; y > top[v.rank] {
			fmt.Fprintf(&p, "V%.1f", y)
		}
		if n == e.label {
			labelX, labelY = v.x+margin, (top[v.rank]+bottom[v.rank])/2
		}
	}
	to(endX, endY)
	return a.drawn(p.String(), head, labelX, labelY)
}
