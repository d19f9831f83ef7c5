module townhall/peers/centrifuge-broker

go 1.24

require github.com/centrifugal/centrifuge v0.40.1
