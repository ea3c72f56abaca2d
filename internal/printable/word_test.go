package printable

import "testing"

// A word is what a shell reads as one word.
func TestWord(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{"": "''", "o-1": "o-1", "bills=orders": "bills=orders", "it's": `'it'\''s'`, "a b": "'a b'", "$(id)": "'$(id)'", "ä": "'ä'"} {
		if got := Word(s); got != want {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
}
