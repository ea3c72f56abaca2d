package doctor

import (
	"context"
	"slices"
)

// check is a check with the function that looks. Exactly one of the functions is set; its receiver is what the check looks at.
type check struct {
	Check
	catalog  bool // it reads Postgres' catalog alone, so it can look at a schema whose tables can't be read
	probe    bool // it sends something: it runs with Config.Probe only
	host     func(context.Context, *examination) []Result
	database func(context.Context, *database) []Result
	schema   func(context.Context, *schema) []Result
	cluster  func(context.Context, *cluster) []Result
}

// all lists the checks by group. A file for each group has the functions.
var all = slices.Concat(hostChecks, postgresChecks, brokerChecks, outboxChecks, consumerChecks, flowChecks)

// Checks returns the descriptions of all checks, in the order of reports.
func Checks() []Check {
	list := make([]Check, len(all))
	for i, k := range all {
		list[i] = k.Check
	}
	return list
}

// named reports whether a name is the check's code or its group.
func (k check) named(name string) bool { return k.Code == name || string(k.Group) == name }

// one returns a list of one result.
func one(r Result) []Result { return []Result{r} }
