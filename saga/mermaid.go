package saga

import (
	"fmt"
	"regexp"
	"strings"
)

// mermaidID is the form of the names that Mermaid accepts for states. A state with another name needs an alias.
var mermaidID = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// mermaidWords are words with a meaning in Mermaid. A state with such a name needs an alias.
var mermaidWords = map[string]bool{
	"state": true, "end": true, "note": true, "direction": true, "as": true, "class": true, "classDef": true, "style": true,
	"click": true, "default": true, "accTitle": true, "accDescr": true,
}

// Mermaid returns the definition as a Mermaid state diagram. States and transitions are in the order in which they were
// added, so the diagram of an unchanged definition stays the same.
func (d *Definition[S]) Mermaid() string {
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n")
	ids := map[string]string{}
	for n, s := range d.states {
		ids[s.name] = s.name
		if !mermaidID.MatchString(s.name) || mermaidWords[s.name] {
			ids[s.name] = fmt.Sprintf("state_%d", n+1)
			fmt.Fprintf(&b, "    state %q as %s\n", s.name, ids[s.name])
		}
	}
	for _, name := range d.initial {
		fmt.Fprintf(&b, "    [*] --> %s\n", ids[name])
	}
	for _, s := range d.states {
		for _, t := range d.transitions {
			if t.from == s.name {
				fmt.Fprintf(&b, "    %s --> %s : %s\n", ids[s.name], ids[t.to], t.route.eventType)
			}
		}
		for _, l := range s.deadlines {
			fmt.Fprintf(&b, "    %s --> %s : deadline\n", ids[s.name], ids[l.to])
		}
		if s.final {
			fmt.Fprintf(&b, "    %s --> [*]\n", ids[s.name])
		}
	}
	return b.String()
}
