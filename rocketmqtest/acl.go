package rocketmqtest

import (
	"cmp"
	"slices"
	"strings"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// access returns a refusal if no user has signed the request, or the one who has may not make it, else nil. The name server has no users,
// like the real one. TestSameRefusalsAsRocketMQ compares the refusals with those of a real one.
func (s *Server) access(r *request) *remoting.Command {
	if len(s.config.Credentials)+len(s.config.Users) == 0 || r.from.endpoint == s.nameServer {
		return nil
	}
	key := r.Ext["AccessKey"]
	secret, administrator := s.config.Credentials[key]
	var user User
	for _, u := range s.config.Users {
		if u.Name == key {
			user, secret = u, u.Secret
		}
	}
	known := administrator || user.Name != ""
	signed := known && (remoting.Credentials{AccessKey: key, SecretKey: secret}).Signed(r.Command)
	if s.is4() {
		switch {
		case key == "":
			return refuseAsACL1(r, "No accessKey is configured")
		case !known:
			return refuseAsACL1(r, "No acl config for %s", key)
		case !signed:
			return refuseAsACL1(r, "Check signature failed for accessKey=%s", key)
		case administrator:
			return nil
		}
		return authorizeAsACL1(r, user)
	}
	switch {
	case key == "":
		return r.refuse(remoting.NoPermission, "username cannot be null.")
	case !known:
		return r.refuse(remoting.NoPermission, "User:%s is not found.", key)
	case !signed:
		return r.refuse(remoting.NoPermission, "check signature failed.")
	case administrator:
		return nil
	}
	for _, n := range s.needs(r) {
		if !user.may(n) {
			return r.refuse(remoting.NoPermission, "User:%s has no permission to access %s:%s from %s, no matched policies.", user.Name, n.kind, n.name, r.from.remote.Addr())
		}
	}
	return nil
}

// refuseAsACL1 returns a refusal in the form of ACL 1.0.
func refuseAsACL1(r *request, format string, args ...any) *remoting.Command {
	return r.refuse(remoting.SystemError, "org.apache.rocketmq.acl.common.AclException: "+format, args...)
}

// authorizeAsACL1 returns the refusal of ACL 1.0, which has administrators for changes, and grants to publish and to read for some requests
// only: not for batches of messages.
func authorizeAsACL1(r *request, user User) *remoting.Command {
	switch r.Code {
	case remoting.UpdateTopic, remoting.UpdateBrokerConfig, remoting.DeleteTopicInBroker:
		return refuseAsACL1(r, "Need admin permission for request code=%d, but accessKey=%s is not", r.Code, user.Name)
	}
	var all []need
	switch topic, group := r.Ext["topic"], r.Ext["consumerGroup"]; r.Code {
	case remoting.SendMessage:
		if !strings.HasPrefix(topic, retryPrefix) { // the group of retries is looked for in a field that a send doesn't have
			all = []need{{kindTopic, topic, []string{actionPublish}}}
		}
	case remoting.SendMessageV2:
		all = []need{toSend(r.Ext["b"], r.Ext["a"])}
	case remoting.SendMessageBack:
		all = []need{ofGroup(r.Ext["group"], actionSubscribe)}
	case remoting.PullMessage:
		all = []need{ofTopic(topic, actionSubscribe), ofGroup(group, actionSubscribe)}
	case remoting.UpdateConsumerOffset:
		all = []need{ofGroup(group, actionSubscribe), ofTopic(topic, actionSubscribe)}
	case remoting.QueryMessage:
		all = []need{ofTopic(topic, actionSubscribe)}
	case remoting.UnregisterClient, remoting.ConsumerList:
		if group != "" {
			all = []need{ofGroup(group, actionSubscribe)}
		}
	case remoting.Heartbeat:
		all = ofHeartbeat(r.Body, true)
	}
	slices.SortStableFunc(all, func(a, b need) int { return cmp.Compare(a.bucket(), b.bucket()) })
	for _, n := range all {
		if !user.may(n) {
			return refuseAsACL1(r, "No default permission for %s:%s", strings.ToLower(n.kind), n.name)
		}
	}
	return nil
}

// need is a resource of which a request needs one of the actions.
type need struct {
	kind, name string
	actions    []string
}

// bucket returns the place of the resource in a hash table of Java, in whose order ACL 1.0 looks at the needs of a request.
func (n need) bucket() (place uint32) {
	key := n.name
	if n.kind == kindGroup {
		key = retryPrefix + n.name
	}
	for _, char := range []byte(key) {
		place = place*31 + uint32(char)
	}
	return (place ^ place>>16) & 15
}

// ofTopic returns the need of a topic, or of the group whose topic for retries it is.
func ofTopic(topic string, actions ...string) need {
	if group, retries := strings.CutPrefix(topic, retryPrefix); retries {
		return ofGroup(group, actions...)
	}
	return need{kindTopic, topic, actions}
}

// ofGroup returns the need of a group.
func ofGroup(group string, actions ...string) need { return need{kindGroup, group, actions} }

// toSend returns the need of a send. Who sends to a topic for retries needs to be able to read as a group, which is that of the topic or,
// in some versions, the sender's.
func toSend(topic, group string) need {
	if strings.HasPrefix(topic, retryPrefix) {
		return ofGroup(group, actionSubscribe)
	}
	return need{kindTopic, topic, []string{actionPublish}}
}

// needs returns what a request needs by ACL 2.0, in the order in which it is checked. Requests without a header, such as those for the
// broker's settings, need nothing.
func (s *Server) needs(r *request) []need {
	topic, group := r.Ext["topic"], r.Ext["consumerGroup"]
	plain := func(actions ...string) []need { return []need{{kindTopic, topic, actions}} }
	// both returns the needs of a topic, unless it is one for retries, and of a group.
	both := func(actions ...string) (all []need) {
		if !strings.HasPrefix(topic, retryPrefix) {
			all = plain(actions...)
		}
		return append(all, ofGroup(group, actions...))
	}
	switch r.Code {
	case remoting.RouteOfTopic: // of a proxy
		return []need{ofTopic(topic, actionPublish, actionSubscribe, actionGet)}
	case remoting.SendMessage:
		return []need{toSend(topic, strings.TrimPrefix(topic, retryPrefix))}
	case remoting.SendMessageV2, remoting.SendBatchMessage:
		group := r.Ext["a"]
		if s.is55() {
			group = strings.TrimPrefix(r.Ext["b"], retryPrefix)
		}
		return []need{toSend(r.Ext["b"], group)}
	case remoting.RecallMessage:
		return plain(actionPublish)
	case remoting.EndTransaction:
		if topic == "" {
			return nil
		}
		return plain(actionPublish)
	case remoting.SendMessageBack:
		return []need{ofGroup(r.Ext["group"], actionSubscribe)}
	case remoting.PullMessage:
		return both(actionSubscribe)
	case remoting.QueryConsumerOffset:
		return both(actionSubscribe, actionGet)
	case remoting.UpdateConsumerOffset:
		return both(actionSubscribe, actionUpdate)
	case remoting.Heartbeat:
		return ofHeartbeat(r.Body, false)
	case remoting.LockQueues, remoting.UnlockQueues:
		return ofQueues(r.Body)
	case remoting.ConsumerList:
		return []need{ofGroup(group, actionSubscribe, actionGet)}
	case remoting.UnregisterClient:
		if group == "" {
			return nil
		}
		return []need{ofGroup(group, actionSubscribe)}
	case remoting.QueryMessage:
		return plain(actionSubscribe, actionGet)
	case remoting.MaxOffset, remoting.MinOffset, remoting.SearchOffset, remoting.GroupsOfTopic:
		return []need{ofTopic(topic, actionGet)}
	case remoting.UpdateTopic:
		return []need{ofTopic(topic, actionCreate)}
	case remoting.DeleteTopicInBroker:
		return []need{ofTopic(topic, actionDelete)}
	case remoting.ResumeCheck:
		return []need{ofTopic(topic, actionUpdate)}
	case remoting.ResetGroup:
		return []need{ofGroup(r.Ext["group"], actionUpdate), ofTopic(topic, actionUpdate)}
	case remoting.ConsumerConnections:
		return []need{ofGroup(group, actionGet)}
	case remoting.ProducerConnections:
		return []need{{kindCluster, clusterName, []string{actionGet}}}
	}
	return nil
}

// ofHeartbeat returns the needs of a heartbeat: its groups and what they read, with or without topics for retries.
func ofHeartbeat(body []byte, retries bool) (all []need) {
	h, err := decodeHeartbeat(body)
	if err != nil {
		return nil // the handler refuses it
	}
	for _, c := range h.Consumers {
		all = append(all, ofGroup(c.Group, actionSubscribe))
		for _, sub := range c.Subscriptions {
			if retries || !strings.HasPrefix(sub.Topic, retryPrefix) {
				all = append(all, ofTopic(sub.Topic, actionSubscribe))
			}
		}
	}
	return all
}

// ofQueues returns the needs of a lock or its release: the group and the topics of the queues.
func ofQueues(body []byte) []need {
	b, err := decodeLock(body)
	if err != nil {
		return nil // the handler refuses it
	}
	all := []need{ofGroup(b.Group, actionSubscribe)}
	for _, q := range b.Queues {
		if !strings.HasPrefix(q.Topic, retryPrefix) {
			all = append(all, ofTopic(q.Topic, actionSubscribe))
		}
	}
	return all
}
