package devstack

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// AuthConfig makes a broker require credentials. The name server never does.
type AuthConfig struct {
	// Admin is a user who may do anything.
	Admin rocketmqtest.User
	// Users are created at the first start of the broker.
	Users []rocketmqtest.User
}

// properties returns the broker settings that enable authentication and authorisation.
func (a *AuthConfig) properties() map[string]string {
	const provider = "org.apache.rocketmq.auth."
	return map[string]string{
		"authenticationEnabled":                "true",
		"authenticationProvider":               provider + "authentication.provider.DefaultAuthenticationProvider",
		"authenticationMetadataProvider":       provider + "authentication.provider.LocalAuthenticationMetadataProvider",
		"initAuthenticationUser":               encode(map[string]string{"username": a.Admin.Name, "password": a.Admin.Secret}),
		"innerClientAuthenticationCredentials": encode(map[string]string{"accessKey": a.Admin.Name, "secretKey": a.Admin.Secret}),
		"authorizationEnabled":                 "true",
		"authorizationProvider":                provider + "authorization.provider.DefaultAuthorizationProvider",
		"authorizationMetadataProvider":        provider + "authorization.provider.LocalAuthorizationMetadataProvider",
	}
}

// keys returns the credentials of the admin.
func (a *AuthConfig) keys() remoting.Credentials {
	return remoting.Credentials{AccessKey: a.Admin.Name, SecretKey: a.Admin.Secret}
}

// createUsers creates the users and their grants at the broker.
func (a *AuthConfig) createUsers(ctx context.Context, broker string, config *tls.Config) error {
	conn, err := remoting.DialTLS(ctx, broker, config, a.keys(), nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, u := range a.Users {
		if _, err := conn.Call(ctx, &remoting.Command{
			Code: remoting.CreateUser,
			Ext:  map[string]string{"username": u.Name},
			Body: []byte(encode(map[string]string{"username": u.Name, "password": u.Secret, "userType": "Normal", "userStatus": "enable"})),
		}); err != nil {
			return fmt.Errorf("create user %s: %w", u.Name, err)
		}
		if len(u.Grants) == 0 {
			continue
		}
		type entry struct {
			Resource string   `json:"resource"`
			Actions  []string `json:"actions"`
			Decision string   `json:"decision"`
		}
		var entries []entry
		for _, g := range u.Grants {
			entries = append(entries, entry{g.Resource, g.Actions, "Allow"})
		}
		subject := "User:" + u.Name
		if _, err := conn.Call(ctx, &remoting.Command{
			Code: remoting.CreateACL,
			Ext:  map[string]string{"subject": subject},
			Body: []byte(encode(map[string]any{"subject": subject, "policies": []any{map[string]any{"policyType": "Custom", "entries": entries}}})),
		}); err != nil {
			return fmt.Errorf("grant to user %s: %w", u.Name, err)
		}
	}
	return nil
}

// writeACL1 writes the accounts as ACL 1.0 reads them, into the directory conf of the broker's home. A grant on names with a prefix isn't
// possible there.
func (a *AuthConfig) writeACL1(dir string) error {
	type account struct {
		AccessKey    string   `json:"accessKey"`
		SecretKey    string   `json:"secretKey"`
		Admin        bool     `json:"admin"`
		DefaultTopic string   `json:"defaultTopicPerm"`
		DefaultGroup string   `json:"defaultGroupPerm"`
		Topics       []string `json:"topicPerms,omitempty"`
		Groups       []string `json:"groupPerms,omitempty"`
	}
	for _, u := range append([]rocketmqtest.User{a.Admin}, a.Users...) {
		if len(u.Name) <= 6 || len(u.Secret) <= 6 { // else the broker dies with a ClassCastException
			return fmt.Errorf("user %s: ACL 1.0 wants names and secrets of more than 6 characters", u.Name)
		}
	}
	accounts := []account{{AccessKey: a.Admin.Name, SecretKey: a.Admin.Secret, Admin: true, DefaultTopic: "PUB|SUB", DefaultGroup: "SUB"}}
	for _, u := range a.Users {
		c := account{AccessKey: u.Name, SecretKey: u.Secret, DefaultTopic: "DENY", DefaultGroup: "DENY"}
		for _, g := range u.Grants {
			permission := strings.ToUpper(strings.Join(g.Actions, "|"))
			switch kind, name, _ := strings.Cut(g.Resource, ":"); {
			case kind == "Topic" && name == "*":
				c.DefaultTopic = permission
			case kind == "Group" && name == "*":
				c.DefaultGroup = permission
			case strings.HasSuffix(name, "*"):
				return fmt.Errorf("grant on %s: ACL 1.0 knows no prefixes", g.Resource)
			case kind == "Topic":
				c.Topics = append(c.Topics, name+"="+permission)
			default:
				c.Groups = append(c.Groups, name+"="+permission)
			}
		}
		accounts = append(accounts, c)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "plain_acl.yml"), []byte(encode(map[string]any{"accounts": accounts})), 0o600) // JSON is YAML, too
}

// encode returns v as JSON.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of strings can always be encoded
	}
	return string(b)
}
