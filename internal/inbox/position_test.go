package inbox_test

import (
	"slices"
	"testing"

	"github.com/rocketflow/rocketflow/internal/inbox"
)

// A position distinguishes events that were passed over from handled ones, however long its stream is.
func TestPositionRemembersWhatItPassedOver(t *testing.T) {
	t.Parallel()
	var at inbox.Position
	for i := range int64(2 * inbox.MaxSkipped) {
		at.Skipped = at.Skip(10*i, 10*i+5)
		if !at.PassedOver(10*i+1) || i > 0 && !at.PassedOver(10*(i-1)+1) || !at.PassedOver(1) {
			t.Fatalf("after %d: %v", i, at.Skipped)
		}
		if at.PassedOver(10*i + 7) {
			t.Fatalf("after %d: what was handled counts as passed over", i)
		}
	}
	if len(at.Skipped) != 2*inbox.MaxSkipped || !slices.IsSorted(at.Skipped) {
		t.Errorf("%d ends of stretches: %v", len(at.Skipped), at.Skipped[:6])
	}
}
