package outbox

import _ "github.com/sony/gobreaker/v2"
