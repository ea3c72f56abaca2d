package console

import (
	"cmp"
	"slices"
)

// node is a state to be laid out, or, between two states, a place that an edge goes through.
type node struct {
	name        string
	left, right float64 // from its middle to its sides
	height      float64
	rank        int
	x           float64 // of its middle
}

// edge is an arrow to be laid out, between two states that differ.
type edge struct {
	from, to      int // nodes
	width, height float64
	// through are the nodes from the upper end to the lower one, the ends included. Edges that close a cycle go upwards.
	through []int
	up      bool
	label   int // the node of through that has the label; -1: none
}

// layered is a drawing of a graph in ranks from top to bottom. States have even ranks; the labels of the edges that leave a state have the
// rank below it, or above it for edges that go upwards. So nothing overlaps.
type layered struct {
	nodes  []node // the states first
	states int
	edges  []edge
	ranks  [][]int // the nodes of each rank, from left to right
}

const (
	nodeGap     = 18.0 // between two nodes of a rank
	orderRounds = 12
	placeRounds = 24
)

// layOut ranks the nodes, orders each rank so that few edges cross, and places them. The same graph has always the same layout.
func layOut(nodes []node, edges []edge) *layered {
	l := &layered{nodes: slices.Clone(nodes), states: len(nodes), edges: slices.Clone(edges)}
	l.breakCycles()
	l.rank()
	l.split()
	l.order()
	l.place()
	return l
}

// breakCycles turns the edges upwards that close a cycle, seen from the first node on.
func (l *layered) breakCycles() {
	out := make([][]int, len(l.nodes))
	for i, e := range l.edges {
		out[e.from] = append(out[e.from], i)
	}
	const unseen, open, closed = 0, 1, 2
	seen := make([]int, len(l.nodes))
	var visit func(int)
	visit = func(n int) {
		seen[n] = open
		for _, i := range out[n] {
			switch e := &l.edges[i]; seen[e.to] {
			case unseen:
				visit(e.to)
			case open:
				e.up = true
			}
		}
		seen[n] = closed
	}
	for n := range l.nodes {
		if seen[n] == unseen {
			visit(n)
		}
	}
}

// ends returns the upper and the lower node of an edge.
func (e *edge) ends() (upper, lower int) {
	if e.up {
		return e.to, e.from
	}
	return e.from, e.to
}

// rank puts each node below those that lead to it.
func (l *layered) rank() {
	for range l.nodes { // the longest way has fewer edges than there are nodes
		moved := false
		for i := range l.edges {
			upper, lower := l.edges[i].ends()
			if least := l.nodes[upper].rank + 2; l.nodes[lower].rank < least {
				l.nodes[lower].rank, moved = least, true
			}
		}
		if !moved {
			break
		}
	}
}

// split adds the nodes that edges go through.
func (l *layered) split() {
	for i := range l.edges {
		e := &l.edges[i]
		upper, lower := e.ends()
		e.through, e.label = []int{upper}, -1
		first, last := l.nodes[upper].rank+1, l.nodes[lower].rank-1
		labelled := first
		if e.up {
			labelled = last
		}
		for r := first; r <= last; r++ {
			n := node{rank: r, left: 1, right: 1}
			if r == labelled && e.width > 0 {
				n.left, n.right, n.height = e.width/2, e.width/2, e.height
				e.label = len(l.nodes)
			}
			e.through = append(e.through, len(l.nodes))
			l.nodes = append(l.nodes, n)
		}
		e.through = append(e.through, lower)
	}
	for i, n := range l.nodes {
		for len(l.ranks) <= n.rank {
			l.ranks = append(l.ranks, nil)
		}
		l.ranks[n.rank] = append(l.ranks[n.rank], i)
	}
}

// neighbours returns the nodes above and below each node.
func (l *layered) neighbours() (above, below [][]int) {
	above, below = make([][]int, len(l.nodes)), make([][]int, len(l.nodes))
	for _, e := range l.edges {
		for i := 1; i < len(e.through); i++ {
			a, b := e.through[i-1], e.through[i]
			above[b], below[a] = append(above[b], a), append(below[a], b)
		}
	}
	return above, below
}

// order moves each node towards the middle of its neighbours, and keeps the order with the fewest crossings.
func (l *layered) order() {
	above, below := l.neighbours()
	at := make([]float64, len(l.nodes))
	number := func(rank []int) {
		for i, n := range rank {
			at[n] = float64(i)
		}
	}
	sortBy := func(rank []int, next [][]int) {
		middle := make(map[int]float64, len(rank))
		for _, n := range rank {
			middle[n] = at[n]
			if len(next[n]) > 0 {
				sum := 0.0
				for _, m := range next[n] {
					sum += at[m]
				}
				middle[n] = sum / float64(len(next[n]))
			}
		}
		slices.SortStableFunc(rank, func(a, b int) int { return cmp.Compare(middle[a], middle[b]) })
		number(rank)
	}
	for _, r := range l.ranks {
		number(r)
	}
	best, fewest := l.copyRanks(), l.crossings(below, at)
	for round := range orderRounds {
		for i := range l.ranks {
			if round%2 == 0 {
				sortBy(l.ranks[i], above)
			} else {
				sortBy(l.ranks[len(l.ranks)-1-i], below)
			}
		}
		if n := l.crossings(below, at); n < fewest {
			best, fewest = l.copyRanks(), n
		}
	}
	l.ranks = best
}

func (l *layered) copyRanks() [][]int {
	list := make([][]int, len(l.ranks))
	for i, r := range l.ranks {
		list[i] = slices.Clone(r)
	}
	return list
}

// crossings counts the pairs of edges that cross.
func (l *layered) crossings(below [][]int, at []float64) (n int) {
	for _, r := range l.ranks {
		var lines [][2]float64
		for _, a := range r {
			for _, b := range below[a] {
				lines = append(lines, [2]float64{at[a], at[b]})
			}
		}
		for i, a := range lines {
			for _, b := range lines[:i] {
				if (a[0]-b[0])*(a[1]-b[1]) < 0 {
					n++
				}
			}
		}
	}
	return n
}

// place moves each node, in the order of its rank, as near to the middle of its neighbours as those beside it allow.
func (l *layered) place() {
	above, below := l.neighbours()
	for _, r := range l.ranks {
		x := 0.0
		for _, n := range r {
			l.nodes[n].x = x + l.nodes[n].left
			x += l.nodes[n].left + l.nodes[n].right + nodeGap
		}
	}
	for round := range placeRounds {
		for i := range l.ranks {
			next := [][][]int{above}
			if round%2 == 1 {
				i, next = len(l.ranks)-1-i, [][][]int{below}
			}
			if round >= placeRounds-2 {
				next = [][][]int{above, below}
			}
			l.placeRank(l.ranks[i], next)
		}
	}
	least := 0.0
	for i, n := range l.nodes {
		if left := n.x - n.left; i == 0 || left < least {
			least = left
		}
	}
	for i := range l.nodes {
		l.nodes[i].x -= least
	}
}

// placeRank finds the places with the smallest sum of squared distances from the wanted ones, by joining nodes that want to be where
// others are into blocks that move together.
func (l *layered) placeRank(rank []int, next [][][]int) {
	type block struct {
		sum   float64 // of what its nodes want for the first of them
		nodes int
	}
	var blocks []block
	offset := make([]float64, len(rank)) // of each node from the first
	for i, n := range rank {
		if i > 0 {
			offset[i] = offset[i-1] + l.nodes[rank[i-1]].right + nodeGap + l.nodes[n].left
		}
		want, neighbours := 0.0, 0
		for _, list := range next {
			for _, m := range list[n] {
				want += l.nodes[m].x
				neighbours++
			}
		}
		if neighbours == 0 {
			want = l.nodes[n].x
		} else {
			want /= float64(neighbours)
		}
		b := block{want - offset[i], 1}
		for len(blocks) > 0 {
			last := blocks[len(blocks)-1]
			if last.sum/float64(last.nodes) <= b.sum/float64(b.nodes) {
				break
			}
			b = block{last.sum + b.sum, last.nodes + b.nodes}
			blocks = blocks[:len(blocks)-1]
		}
		blocks = append(blocks, b)
	}
	i := 0
	for _, b := range blocks {
		for range b.nodes {
			l.nodes[rank[i]].x = b.sum/float64(b.nodes) + offset[i]
			i++
		}
	}
}
