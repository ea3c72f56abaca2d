package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rocketflow/rocketflow/internal/printable"
)

// safe returns text from outside for a comment of a command: it can't end the line.
func safe(s string) string { return printable.Line(s, printable.Name) }

// shell returns text as one word of a shell's command. It can't end the line, so that nobody who chooses a name chooses a command.
func shell(s string) string { return printable.Word(safe(s)) }

// sorted joins texts in alphabetical order.
func sorted(texts []string, separator string) string {
	return strings.Join(slices.Sorted(slices.Values(texts)), separator)
}

// some joins the first texts, and says how many there are more.
func some(texts []string, most int) string {
	if len(texts) <= most {
		return strings.Join(texts, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(texts[:most], ", "), len(texts)-most)
}
