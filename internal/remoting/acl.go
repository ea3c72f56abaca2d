package remoting

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"maps"
	"slices"
)

// Credentials are a user's name and secret, with which requests are signed. With the zero value they are not.
type Credentials struct {
	AccessKey, SecretKey string
}

// IsZero reports whether k is the zero value.
func (k Credentials) IsZero() bool { return k.AccessKey == "" && k.SecretKey == "" }

// Sign adds the access key to c, and a signature of its fields and body.
func (k Credentials) Sign(c *Command) {
	if k.IsZero() {
		return
	}
	if c.Ext == nil {
		c.Ext = map[string]string{}
	}
	c.Ext["AccessKey"] = k.AccessKey
	c.Ext["Signature"] = k.signature(c)
}

// Signed reports whether c has the signature that Sign makes with k.
func (k Credentials) Signed(c *Command) bool {
	return c.Ext["AccessKey"] == k.AccessKey && hmac.Equal([]byte(c.Ext["Signature"]), []byte(k.signature(c)))
}

// signature returns the HMAC of the fields' values, sorted by name, and the body.
func (k Credentials) signature(c *Command) string {
	mac := hmac.New(sha1.New, []byte(k.SecretKey))
	for _, name := range slices.Sorted(maps.Keys(c.Ext)) {
		if name != "Signature" {
			mac.Write([]byte(c.Ext[name]))
		}
	}
	mac.Write(c.Body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
