module oscar-metrics.test/geoipupdate

go 1.26.5

tool github.com/maxmind/geoipupdate/v6/cmd/geoipupdate

require (
	github.com/cenkalti/backoff/v4 v4.2.1 // indirect
	github.com/gofrs/flock v0.8.1 // indirect
	github.com/maxmind/geoipupdate/v6 v6.1.0 // indirect
	github.com/spf13/pflag v1.0.5 // indirect
	golang.org/x/sync v0.6.0 // indirect
	golang.org/x/sys v0.16.0 // indirect
)
