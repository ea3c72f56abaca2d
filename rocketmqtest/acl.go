package rocketmqtest

import "github.com/rocketflow/rocketflow/internal/remoting"

// authenticate returns a refusal if no user has signed the request, else nil. The name server has no users, like the real
// one.
func (s *Server) authenticate(r *request) *remoting.Command {
	if len(s.config.Credentials) == 0 || r.from.endpoint == s.nameServer {
		return nil
	}
	key := r.Ext["AccessKey"]
	secret, known := s.config.Credentials[key]
	signed := known && (remoting.Credentials{AccessKey: key, SecretKey: secret}).Signed(r.Command)
	if s.is4() { // ACL 1.0
		const exception = "org.apache.rocketmq.acl.common.AclException: %s"
		switch {
		case key == "":
			return r.refuse(remoting.SystemError, exception, "No accessKey is configured")
		case !known:
			return r.refuse(remoting.SystemError, exception, "No acl config for "+key)
		case !signed:
			return r.refuse(remoting.SystemError, exception, "Check signature failed for accessKey="+key)
		}
		return nil
	}
	switch {
	case key == "":
		return r.refuse(remoting.NoPermission, "username cannot be null.")
	case !known:
		return r.refuse(remoting.NoPermission, "User:%s is not found.", key)
	case !signed:
		return r.refuse(remoting.NoPermission, "check signature failed.")
	}
	return nil
}
