#pragma once

#include <string>
#include <vector>

#include "clients/gateway/http/message.hpp"
#include "common/wire/protocol_metrics.hpp"

namespace tessera::gateway {

// Prometheus' text format, version 0.0.4.
inline constexpr const char* kExpositionType = "text/plain; version=0.0.4; charset=utf-8";

// Whether the family can be written: labels, bounds and values agree in number, and its name and
// help would not break the text. One of a peer that cannot is left out.
bool is_sound(const protocol::MetricFamily& family);

// HELP and TYPE, then every sample; a histogram's buckets are counted up.
void append_head(const protocol::MetricFamily& family, std::string& out);
void append_sample(const protocol::MetricFamily& family, std::size_t sample, std::string& out);
std::string exposition(const std::vector<protocol::MetricFamily>& families);

// The same as a body that is made in slices: with hundreds of workers it has some megabytes.
std::unique_ptr<http::BodySource> exposition_body(std::vector<protocol::MetricFamily> families);

}  // namespace tessera::gateway
