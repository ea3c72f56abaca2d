package remoting

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/rocketflow/rocketflow/broker"
)

// exceptionOfACL1 is in the remarks with which ACL 1.0, of brokers before 5.3.3, refuses a request. They have the code SystemError.
const exceptionOfACL1 = "AclException"

// resource matches the resource that a user lacks a right on, in the remarks of ACL 2.0 and 1.0.
var resource = regexp.MustCompile(`(?:has no permission to access|[Nn]o (?:default )?permission for) ([Tt]opic|[Gg]roup):([^\s,]+)`)

// remedy returns which right is missing, or what is wrong with the credentials, or "" if the remark doesn't say.
func (e *ResponseError) remedy() string {
	if !errors.Is(e.meaning(), broker.ErrUnauthorized) {
		return ""
	}
	has := func(text string) bool { return strings.Contains(e.Remark, text) }
	if m := resource.FindStringSubmatch(e.Remark); m != nil {
		kind := strings.ToLower(m[1])
		return fmt.Sprintf("the user needs the right %s on %s %s", rightOn(kind, e.Request), kind, m[2])
	}
	switch {
	case has("Need admin permission"):
		return "the user has to be an administrator (admin: true in plain_acl.yml)"
	case has("ignature"):
		return "the secret key is wrong"
	case has("No accessKey is configured"), has("username cannot be null"):
		return "the broker requires credentials: set AccessKey and SecretKey"
	case has("No acl config for"), has("is not found"):
		return "the broker has no such user: the access key is wrong"
	}
	return ""
}

// rightOn returns the right that a request needs on a resource of a kind.
func rightOn(kind string, request Code) string {
	switch request {
	case SendMessage, SendMessageV2, SendBatchMessage:
		return "Pub"
	case UpdateTopic:
		return "Create"
	case SearchOffset, MaxOffset:
		return "Get"
	case QueryConsumerOffset, UpdateConsumerOffset, PullMessage, Heartbeat, UnregisterClient, ConsumerList, LockQueues, UnlockQueues:
		return "Sub"
	}
	if kind == "group" {
		return "Sub"
	}
	return fmt.Sprintf("for request %d", request)
}
