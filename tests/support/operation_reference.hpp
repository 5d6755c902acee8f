#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "tests/support/attention_reference.hpp"

// The encoder's operations in double precision, one row at a time, written for reading.
namespace tessera::testing {

inline std::vector<double> widen(std::span<const std::uint16_t> values) {
  std::vector<double> wide;
  for (const std::uint16_t bits : values) wide.push_back(bf16_to_float(bits));
  return wide;
}

inline std::vector<double> rms_norm_reference(std::span<const double> x,
                                              std::span<const float> weight, double eps) {
  std::vector<double> out(x.begin(), x.end());
  double sum = 0;
  for (const double value : out) sum += value * value;
  const double scale = 1 / std::sqrt(sum / static_cast<double>(out.size()) + eps);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] *= scale * weight[i];
  return out;
}

inline std::vector<double> rms_norm_reference(std::span<const std::uint16_t> x,
                                              std::span<const float> weight, double eps) {
  return rms_norm_reference(std::span<const double>(widen(x)), weight, eps);
}

// RMSNorm of one head, then rotation of the pairs (i, i + half) by position * theta^(-i / half).
inline std::vector<double> norm_rope_reference(std::span<const double> head,
                                               std::span<const float> weight, double eps,
                                               std::int64_t position, double theta) {
  const std::vector<double> x = rms_norm_reference(head, weight, eps);
  const std::size_t half = x.size() / 2;
  std::vector<double> out(x.size());
  for (std::size_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) *
                         std::pow(theta, -static_cast<double>(i) / static_cast<double>(half));
    out[i] = x[i] * std::cos(angle) - x[i + half] * std::sin(angle);
    out[i + half] = x[i + half] * std::cos(angle) + x[i] * std::sin(angle);
  }
  return out;
}

inline std::vector<double> norm_rope_reference(std::span<const std::uint16_t> head,
                                               std::span<const float> weight, double eps,
                                               std::int64_t position, double theta) {
  return norm_rope_reference(std::span<const double>(widen(head)), weight, eps, position, theta);
}

inline double swiglu_reference(double gate, double up) { return gate / (1 + std::exp(-gate)) * up; }

// One head's query over keys [n, 128] and values of the same rows.
inline std::vector<double> query_reference(std::span<const std::uint16_t> query,
                                           const std::vector<std::vector<double>>& keys,
                                           const std::vector<std::vector<double>>& values) {
  const std::vector<double> q = widen(query);
  std::vector<double> weights;
  double maximum = -INFINITY;
  for (const std::vector<double>& key : keys) {
    double dot = 0;
    for (std::size_t i = 0; i < q.size(); ++i) dot += q[i] * key[i];
    weights.push_back(dot / std::sqrt(static_cast<double>(q.size())));
    maximum = std::max(maximum, weights.back());
  }
  double sum = 0;
  std::vector<double> out(q.size());
  for (std::size_t key = 0; key < keys.size(); ++key) {
    const double weight = std::exp(weights[key] - maximum);
    sum += weight;
    for (std::size_t i = 0; i < out.size(); ++i) out[i] += weight * values[key][i];
  }
  for (double& value : out) value /= sum;
  return out;
}

// ||actual - expected|| / ||expected||; infinite where a value is not finite.
template <typename Actual>
double relative_error(const std::vector<Actual>& actual, const std::vector<double>& expected) {
  double difference = 0;
  double norm = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double error = static_cast<double>(actual[i]) - expected[i];
    difference += error * error;
    norm += expected[i] * expected[i];
  }
  return std::isfinite(difference) ? std::sqrt(difference / norm) : INFINITY;
}

inline std::vector<std::uint16_t> random_bf16(std::size_t count, unsigned seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<std::uint16_t> values(count);
  for (std::uint16_t& value : values) value = float_to_bf16(normal(random));
  return values;
}

// Norm weights: around one, as trained ones are.
inline std::vector<float> random_weights(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(1, 0.3F);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace tessera::testing
