package doctor

import (
	"fmt"
	"slices"
	"strings"
)

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
