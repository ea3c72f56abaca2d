package remoting_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Remarks of RocketMQ 5.3.3 and 4.9.7.
func TestRefusalNamesTheMissingRight(t *testing.T) {
	t.Parallel()
	const java = "org.apache.rocketmq.acl.common.AclException: "
	for _, c := range []struct {
		code, request remoting.Code
		remark, want  string
	}{
		{remoting.NoPermission, remoting.SendMessage, "User:app has no permission to access Topic:secrets from 127.0.0.1, no matched policies.", "needs the right Pub on topic secrets"},
		{remoting.NoPermission, remoting.PullMessage, "User:app has no permission to access Topic:secrets from 127.0.0.1, no matched policies.", "needs the right Sub on topic secrets"},
		{remoting.NoPermission, remoting.PullMessage, "User:app has no permission to access Group:other from 127.0.0.1, no matched policies.", "needs the right Sub on group other"},
		{remoting.NoPermission, remoting.UpdateTopic, "User:app has no permission to access Topic:mine from 127.0.0.1, no matched policies.", "needs the right Create on topic mine"},
		{remoting.NoPermission, remoting.Heartbeat, "check signature failed.", "the secret key is wrong"},
		{remoting.NoPermission, remoting.Heartbeat, "username cannot be null.", "set AccessKey and SecretKey"},
		{remoting.NoPermission, remoting.Heartbeat, "User:nobody is not found.", "no such user"},
		{remoting.SystemError, remoting.SendMessage, java + "No default permission for topic:orders, org.apache.rocketmq.acl.plain.PlainPermissionManager.checkPerm(PlainPermissionManager.java:610)", "needs the right Pub on topic orders"},
		{remoting.SystemError, remoting.Heartbeat, java + "Check signature failed for accessKey=publisher, org.apache", "the secret key is wrong"},
		{remoting.SystemError, remoting.Heartbeat, java + "No accessKey is configured, org.apache", "set AccessKey and SecretKey"},
		{remoting.SystemError, remoting.Heartbeat, java + "No acl config for nobody, org.apache", "no such user"},
		{remoting.SystemError, remoting.UpdateTopic, java + "Need admin permission for request code=17, but accessKey=app is not, org.apache", "has to be an administrator"},
	} {
		err := &remoting.ResponseError{Code: c.code, Remark: c.remark, Request: c.request}
		if !errors.Is(err, broker.ErrUnauthorized) || !errors.Is(err, broker.ErrRejected) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	for _, remark := range []string{"Sending message to topic[x] is forbidden.", ""} {
		err := &remoting.ResponseError{Code: remoting.NoPermission, Remark: remark, Request: remoting.SendMessage}
		if strings.HasSuffix(err.Error(), ": ") || strings.Contains(err.Error(), "needs") {
			t.Errorf("got %v", err)
		}
	}
}
