#pragma once

#include <functional>
#include <vector>

#include "clients/gateway/api/services.hpp"
#include "common/wire/protocol_metrics.hpp"

namespace tessera::gateway {

// The gateway's figures, the coordinator's and its workers', as far as they can be had now: without
// a coordinator that answers in time, or with one of an older version, the gateway's alone.
// Families that cannot be written are left out.
void gather_metrics(Services& services,
                    std::function<void(std::vector<protocol::MetricFamily>)> done);

}  // namespace tessera::gateway
