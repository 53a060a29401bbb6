#pragma once

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libswscale/swscale.h>
}

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/moving_shapes.hpp"

namespace ebb::testing {

/// A video as FFmpeg reads it: frames as RGB by the colours that the file names, and the samples before that.
struct DecodedVideo {
  AVRational rate{};
  double seconds = 0;
  AVPixelFormat pixels = AV_PIX_FMT_NONE;
  AVColorSpace matrix{};
  AVColorRange range{};
  AVColorPrimaries primaries{};
  AVColorTransferCharacteristic transfer{};
  std::map<std::string, std::string> metadata;
  std::vector<Frame> frames;
  std::vector<std::array<int, 3>> first_samples;  ///< Y, Cb, Cr of each frame's first pixel
};

namespace detail {
struct FfmpegRelease {
  void operator()(AVFormatContext* context) const { avformat_close_input(&context); }
  void operator()(AVCodecContext* context) const { avcodec_free_context(&context); }
  void operator()(AVFrame* frame) const { av_frame_free(&frame); }
  void operator()(AVPacket* packet) const { av_packet_free(&packet); }
  void operator()(SwsContext* context) const { sws_freeContext(context); }
};
template <class T>
using Ffmpeg = std::unique_ptr<T, FfmpegRelease>;

inline Frame rgb_of(const AVFrame& decoded) {
  const Ffmpeg<SwsContext> converter(sws_getContext(
      decoded.width, decoded.height, static_cast<AVPixelFormat>(decoded.format), decoded.width, decoded.height,
      AV_PIX_FMT_RGB24, SWS_BICUBIC | SWS_FULL_CHR_H_INT | SWS_ACCURATE_RND, nullptr, nullptr, nullptr));
  const int* matrix = sws_getCoefficients(decoded.colorspace);
  sws_setColorspaceDetails(converter.get(), matrix, decoded.color_range == AVCOL_RANGE_JPEG, matrix, 1, 0, 1 << 16,
                           1 << 16);
  Frame frame{static_cast<std::size_t>(decoded.width), static_cast<std::size_t>(decoded.height), {}};
  frame.rgb.resize(frame.width * frame.height * 3);
  const std::array<std::uint8_t*, 4> planes{frame.rgb.data()};
  const std::array<int, 4> strides{3 * decoded.width};
  sws_scale(converter.get(), decoded.data, decoded.linesize, 0, decoded.height, planes.data(), strides.data());
  return frame;
}
}  // namespace detail

/// @throws std::runtime_error when FFmpeg does not read the file
inline DecodedVideo decode_video(const std::filesystem::path& path) {
  const auto check = [](int result, const char* what) {
    if (result < 0) throw std::runtime_error(std::string("FFmpeg does not read it: ") + what);
  };
  AVFormatContext* opened = nullptr;
  check(avformat_open_input(&opened, path.c_str(), nullptr, nullptr), "open");
  const detail::Ffmpeg<AVFormatContext> file(opened);
  check(avformat_find_stream_info(file.get(), nullptr), "streams");
  if (file->nb_streams != 1) throw std::runtime_error("more than one stream");
  const AVStream& stream = *file->streams[0];
  const AVCodec* decoder = avcodec_find_decoder(stream.codecpar->codec_id);
  const detail::Ffmpeg<AVCodecContext> codec(avcodec_alloc_context3(decoder));
  check(avcodec_parameters_to_context(codec.get(), stream.codecpar), "parameters");
  codec->thread_count = 1;
  check(avcodec_open2(codec.get(), decoder, nullptr), "decoder");
  DecodedVideo video;
  video.rate = stream.avg_frame_rate;
  video.seconds = static_cast<double>(file->duration) / AV_TIME_BASE;
  video.pixels = codec->pix_fmt;
  video.matrix = codec->colorspace;
  video.range = codec->color_range;
  video.primaries = codec->color_primaries;
  video.transfer = codec->color_trc;
  for (const AVDictionaryEntry* entry = nullptr;
       (entry = av_dict_get(file->metadata, "", entry, AV_DICT_IGNORE_SUFFIX)) != nullptr;)
    video.metadata[entry->key] = entry->value;
  const detail::Ffmpeg<AVPacket> packet(av_packet_alloc());
  const detail::Ffmpeg<AVFrame> frame(av_frame_alloc());
  for (bool more = true; more;) {
    more = av_read_frame(file.get(), packet.get()) >= 0;
    check(avcodec_send_packet(codec.get(), more ? packet.get() : nullptr), "packet");
    av_packet_unref(packet.get());
    for (int result; (result = avcodec_receive_frame(codec.get(), frame.get())) != AVERROR(EAGAIN);) {
      if (result == AVERROR_EOF) break;
      check(result, "frame");
      video.first_samples.push_back({frame->data[0][0], frame->data[1][0], frame->data[2][0]});
      video.frames.push_back(detail::rgb_of(*frame));
    }
  }
  return video;
}

}  // namespace ebb::testing
