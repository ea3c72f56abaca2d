package operate

import (
	"math"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/valid"
)

// checkLimit refuses a negative Limit. filter is the name of the filter's type.
func checkLimit(filter string, limit int) error {
	if limit < 0 {
		return valid.Fieldf("operate."+filter+".Limit", "%d: want 0 for the default, or more", limit)
	}
	return nil
}

// checkChange returns an error unless a filter of a change selects some events or has All set: a filter that is empty by
// mistake, such as from an unset variable, would select everything.
func checkChange(filter string, selects, all bool, limit int) error {
	if selects == all {
		return valid.Field("operate."+filter, "want either All or a field that selects events")
	}
	return checkLimit(filter, limit)
}

// listLimit returns the limit of a list.
func listLimit(limit int) int64 {
	if limit == 0 {
		return DefaultLimit
	}
	return int64(limit)
}

// changeLimit returns the limit of a change, which has none by default.
func changeLimit(limit int) int64 {
	if limit == 0 {
		return math.MaxInt64
	}
	return int64(limit)
}

// idText returns an id as a parameter of SQL, where empty text means any.
func idText(id uuid.UUID) string {
	if id == uuid.Nil {
		return ""
	}
	return id.String()
}
