package remoting

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"maps"
	"slices"
)

// Credentials sign requests. The zero value signs nothing.
type Credentials struct {
	AccessKey, SecretKey string
}

// IsZero tells whether there is nothing to sign with.
func (k Credentials) IsZero() bool { return k.AccessKey == "" && k.SecretKey == "" }

// Sign adds the access key and a signature of the fields and the body to c.
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

// Signed tells whether c carries the signature that k would make.
func (k Credentials) Signed(c *Command) bool {
	return c.Ext["AccessKey"] == k.AccessKey && hmac.Equal([]byte(c.Ext["Signature"]), []byte(k.signature(c)))
}

// signature is taken over the values in the order of their names, then the body.
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
