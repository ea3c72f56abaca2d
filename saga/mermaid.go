package saga

import (
	"fmt"
	"regexp"
	"strings"
)

// mermaidID is what Mermaid takes as the name of a state; another name needs an alias.
var mermaidID = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// mermaidWords mean something to Mermaid.
var mermaidWords = map[string]bool{
	"state": true, "end": true, "note": true, "direction": true, "as": true, "class": true, "classDef": true, "style": true,
	"click": true, "default": true, "accTitle": true, "accDescr": true,
}

// Mermaid draws the definition as a Mermaid state diagram. States and transitions come in the order in which they were
// written, so the text of an unchanged definition is the same.
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
