package rocketmqtest

import (
	"fmt"
	"slices"
	"strings"
)

// User is a user of a [Server] who may do what its grants say and nothing else.
type User struct {
	// Name is the access key.
	Name string
	// Secret is the secret key.
	Secret string
	// Grants is what the user may do.
	// Defaults to nothing that needs a grant.
	Grants []Grant
}

// Grant allows a user actions on resources, as `mqadmin createAcl … -d Allow` does.
type Grant struct {
	// Resource is the kind and the name of a resource, "Topic:orders" or "Group:order-billing". "Topic:order-*" is every topic whose name
	// begins so, "Topic:*" every topic, "Cluster:*" every cluster, and "*" everything. RocketMQ49 has topics and groups, and
	// neither beginnings of names nor "*".
	Resource string
	// Actions are "Pub", "Sub", "Create", "Update", "Delete", "Get" and "List", or "All". RocketMQ49 has "Pub" and "Sub".
	Actions []string
}

// kinds of resources.
const (
	kindTopic   = "Topic"
	kindGroup   = "Group"
	kindCluster = "Cluster"
)

// actions on resources.
const (
	actionPublish   = "Pub"
	actionSubscribe = "Sub"
	actionCreate    = "Create"
	actionUpdate    = "Update"
	actionDelete    = "Delete"
	actionGet       = "Get"
	actionList      = "List"
	actionAll       = "All"
)

// actionsOf returns the actions that a version has.
func actionsOf(v Version) []string {
	if v == RocketMQ49 {
		return []string{actionPublish, actionSubscribe}
	}
	return []string{actionPublish, actionSubscribe, actionCreate, actionUpdate, actionDelete, actionGet, actionList, actionAll}
}

// problem returns what is wrong with a grant, or "".
func (g Grant) problem(v Version) string {
	kind, name, named := strings.Cut(g.Resource, ":")
	switch {
	case !slices.Contains([]string{kindTopic, kindGroup, kindCluster, "*"}, kind), named == (kind == "*"), named && name == "":
		return fmt.Sprintf("resource %q: want Topic:NAME, Group:NAME, Cluster:NAME or *", g.Resource)
	case v == RocketMQ49 && (kind == kindCluster || kind == "*" || len(name) > 1 && strings.HasSuffix(name, "*")):
		return fmt.Sprintf("resource %q: RocketMQ 4.9 has Topic:NAME, Topic:*, Group:NAME and Group:*", g.Resource)
	case len(g.Actions) == 0:
		return fmt.Sprintf("no actions on %s", g.Resource)
	}
	for _, a := range g.Actions {
		if known := actionsOf(v); !slices.Contains(known, a) {
			return fmt.Sprintf("action %q on %s: want %s", a, g.Resource, strings.Join(known, ", "))
		}
	}
	return ""
}

// allows reports whether the grant is for a resource and one of the actions.
func (g Grant) allows(n need) bool {
	if !slices.Contains(g.Actions, actionAll) && !slices.ContainsFunc(n.actions, func(a string) bool { return slices.Contains(g.Actions, a) }) {
		return false
	}
	kind, name, _ := strings.Cut(g.Resource, ":")
	beginning, pattern := strings.CutSuffix(name, "*")
	switch {
	case kind == "*":
		return true
	case kind != n.kind:
		return false
	case pattern:
		return strings.HasPrefix(n.name, beginning)
	}
	return name == n.name
}

// may reports whether the user has a grant for a need.
func (u User) may(n need) bool {
	return slices.ContainsFunc(u.Grants, func(g Grant) bool { return g.allows(n) })
}
