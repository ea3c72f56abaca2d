package valid_test

import (
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/internal/valid"
)

func TestGroup(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{"order": "order", "https://example.com/a b": "https---example-com-a-b", "ö%|_-9": "-%|_-9"} {
		if got := valid.GroupName(s); got != want || !valid.IsGroup(got) {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
	for _, s := range []string{"", "a b", "ö", "\xff", strings.Repeat("x", valid.MaxGroup+1)} {
		if valid.IsGroup(s) {
			t.Errorf("%q is a group's name", s)
		}
	}
}
