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
	g := d.Graph()
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n")
	ids := map[string]string{}
	for n, s := range g.States {
		ids[s.Name] = s.Name
		if !mermaidID.MatchString(s.Name) || mermaidWords[s.Name] {
			ids[s.Name] = fmt.Sprintf("state_%d", n+1)
			fmt.Fprintf(&b, "    state %q as %s\n", s.Name, ids[s.Name])
		}
	}
	for _, name := range d.initial {
		fmt.Fprintf(&b, "    [*] --> %s\n", ids[name])
	}
	for _, s := range g.States {
		for _, t := range g.Transitions {
			switch {
			case t.From == "" || t.From != s.Name:
			case t.Deadline:
				fmt.Fprintf(&b, "    %s --> %s : deadline\n", ids[s.Name], ids[t.To])
			default:
				fmt.Fprintf(&b, "    %s --> %s : %s\n", ids[s.Name], ids[t.To], t.Event)
			}
		}
		if s.Final {
			fmt.Fprintf(&b, "    %s --> [*]\n", ids[s.Name])
		}
	}
	return b.String()
}
