package doctor

import (
	"strings"
	"testing"
)

// Text from outside is one word of a command, whatever is in it.
func TestShell(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"orders":             "orders",
		"127.0.0.1:9876":     "127.0.0.1:9876",
		"a;b":                "'a;b'",
		"":                   "''",
		"it's":               `'it'\''s'`,
		"$(rm -rf /)":        "'$(rm -rf /)'",
		"a\nrm -rf /":        `'a\nrm -rf /'`,
		"%DLQ%shop-billing":  "'%DLQ%shop-billing'",
		"\x1b[2Jx":           `'\x1b[2Jx'`,
		"order/o-1_a.b":      "order/o-1_a.b",
		"<script>alert(1)</": "'<script>alert(1)</'",
	} {
		if got := shell(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
	if s := safe("shop\nrocketflow resend --all"); strings.Contains(s, "\n") {
		t.Errorf("got %q", s)
	}
}
