extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>
}

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <string>
#include <utility>

#include "common/mp4.hpp"
#include "ebb/io/atomic_file.hpp"

namespace ebb::examples {

namespace {

struct Release {
  void operator()(AVFormatContext* context) const { avformat_free_context(context); }
  void operator()(AVCodecContext* context) const { avcodec_free_context(&context); }
  void operator()(AVFrame* frame) const { av_frame_free(&frame); }
  void operator()(AVPacket* packet) const { av_packet_free(&packet); }
  void operator()(SwsContext* context) const { sws_freeContext(context); }
  void operator()(AVIOContext* context) const {
    av_freep(&context->buffer);
    avio_context_free(&context);
  }
};
template <class T>
using Owned = std::unique_ptr<T, Release>;

template <class T>
Owned<T> owned(T* object) {
  if (object == nullptr) throw MemoryError("FFmpeg: out of memory");
  return Owned<T>(object);
}

/// What FFmpeg writes goes to an AtomicFile, at the place where FFmpeg wants it.
class Output {
 public:
  explicit Output(const std::filesystem::path& path) : file_(path) {
    constexpr int buffer_bytes = 1 << 16;
    auto* buffer = static_cast<unsigned char*>(av_malloc(buffer_bytes));
    // The writer's bytes are const since FFmpeg 7: `auto` takes either.
    AVIOContext* context = avio_alloc_context(
        buffer, buffer_bytes, 1, this, nullptr,
        [](void* self, auto* bytes, int count) -> int { return static_cast<Output*>(self)->write(bytes, count); },
        [](void* self, std::int64_t offset, int whence) { return static_cast<Output*>(self)->seek(offset, whence); });
    if (context == nullptr) av_free(buffer);
    context_ = owned(context);
  }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  AtomicFile& file() { return file_; }
  AVIOContext* context() { return context_.get(); }

  /// @throws the FileError of a write that failed: FFmpeg's own codes do not know the reason, and it drops some
  void check() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  int write(const std::uint8_t* bytes, int count) noexcept {
    try {
      file_.write_at(position_, std::as_bytes(std::span(bytes, static_cast<std::size_t>(count))));
    } catch (...) {
      if (!failure_) failure_ = std::current_exception();
      return AVERROR(EIO);
    }
    position_ += static_cast<std::size_t>(count);
    end_ = std::max(end_, position_);
    return count;
  }
  std::int64_t seek(std::int64_t offset, int whence) noexcept {
    if ((whence & AVSEEK_SIZE) != 0) return static_cast<std::int64_t>(end_);
    whence &= ~AVSEEK_FORCE;
    const std::size_t from = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? position_ : end_;
    const std::int64_t target = static_cast<std::int64_t>(from) + offset;
    if (target < 0) return AVERROR(EINVAL);
    position_ = static_cast<std::size_t>(target);
    return target;
  }

  AtomicFile file_;
  std::size_t position_ = 0;
  std::size_t end_ = 0;
  std::exception_ptr failure_;
  Owned<AVIOContext> context_;
};

class Mp4Writer final : public VideoSink {
 public:
  Mp4Writer(const std::filesystem::path& path, const VideoFormat& format, const AVCodec* encoder)
      : VideoSink(path, format), output_(path), frame_(owned(av_frame_alloc())), packet_(owned(av_packet_alloc())) {
    open_encoder(encoder);
    open_converter();
    frame_->format = encoder_->pix_fmt;
    frame_->width = encoder_->width;
    frame_->height = encoder_->height;
    frame_->color_range = encoder_->color_range;
    frame_->color_primaries = encoder_->color_primaries;
    frame_->color_trc = encoder_->color_trc;
    frame_->colorspace = encoder_->colorspace;
    frame_->chroma_location = encoder_->chroma_sample_location;
    check(av_frame_get_buffer(frame_.get(), 0), "a frame");
    open_container();
  }

 private:
  void open_encoder(const AVCodec* encoder) {
    encoder_ = owned(avcodec_alloc_context3(encoder));
    encoder_->width = static_cast<int>(format().width);
    encoder_->height = static_cast<int>(format().height);
    encoder_->pix_fmt = AV_PIX_FMT_YUV420P;
    encoder_->framerate = {format().frames_per_second.numerator, format().frames_per_second.denominator};
    encoder_->time_base = av_inv_q(encoder_->framerate);
    encoder_->sample_aspect_ratio = {1, 1};
    encoder_->color_range = AVCOL_RANGE_MPEG;
    encoder_->color_primaries = AVCOL_PRI_BT709;
    encoder_->color_trc = AVCOL_TRC_BT709;
    encoder_->colorspace = AVCOL_SPC_BT709;
    encoder_->chroma_sample_location = AVCHROMA_LOC_LEFT;
    encoder_->flags |= AV_CODEC_FLAG_GLOBAL_HEADER | AV_CODEC_FLAG_BITEXACT;
    encoder_->thread_count = 8;  // x264's choices depend on their number, but not on how many cores run them
    check(av_opt_set(encoder_->priv_data, "preset", "medium", 0), "option preset");
    check(av_opt_set_double(encoder_->priv_data, "crf", format().quality, 0), "option crf");
    check(avcodec_open2(encoder_.get(), encoder, nullptr),
          concat("the encoder takes no ", format().width, " x ", format().height,
                 " pixels, or has no memory for them; make less, or write .y4m or PNG frames")
              .c_str());
  }

  void open_converter() {
    converter_ = owned(sws_alloc_context());
    const auto set = [&](const char* name, std::int64_t value) {
      check(av_opt_set_int(converter_.get(), name, value, 0), name);
    };
    set("srcw", encoder_->width);
    set("srch", encoder_->height);
    set("src_format", AV_PIX_FMT_RGB24);
    set("dstw", encoder_->width);
    set("dsth", encoder_->height);
    set("dst_format", encoder_->pix_fmt);
    set("sws_flags", SWS_BICUBIC | SWS_FULL_CHR_H_INP | SWS_ACCURATE_RND | SWS_BITEXACT);
    set("dst_h_chr_pos", 0);  // in 1/256 of a pixel: at the left one of each two, between two rows
    set("dst_v_chr_pos", 128);
    check(sws_init_context(converter_.get(), nullptr, nullptr), "the colour conversion");
    const int* bt709 = sws_getCoefficients(SWS_CS_ITU709);
    constexpr int full = 1, limited = 0, neutral = 1 << 16;
    check(sws_setColorspaceDetails(converter_.get(), bt709, full, bt709, limited, 0, neutral, neutral),
          "the colour conversion");
  }

  void open_container() {
    AVFormatContext* context = nullptr;
    check(avformat_alloc_output_context2(&context, nullptr, "mp4", nullptr), "the container");
    container_ = owned(context);
    container_->pb = output_.context();
    container_->flags |= AVFMT_FLAG_BITEXACT;
    // To move the index in front, the muxer reads the file again, by its name.
    container_->url = av_strdup(output_.file().partial().c_str());
    if (container_->url == nullptr) throw MemoryError("FFmpeg: out of memory");
    AVStream* stream = avformat_new_stream(container_.get(), nullptr);
    if (stream == nullptr) throw MemoryError("FFmpeg: out of memory");
    stream->time_base = encoder_->time_base;
    stream->avg_frame_rate = encoder_->framerate;
    check(avcodec_parameters_from_context(stream->codecpar, encoder_.get()), "the stream");
    const auto describe = [&](const char* key, const std::string& text) {
      if (!text.empty()) check(av_dict_set(&container_->metadata, key, text.c_str(), 0), key);
    };
    describe("title", format().title);
    describe("comment", format().parameters);
    check(av_opt_set(container_->priv_data, "movflags", "+faststart", 0), "option movflags");
    check(avformat_write_header(container_.get(), nullptr), "the header");
  }

  void append(Image<const std::uint8_t> frame, std::size_t index) override {
    check(av_frame_make_writable(frame_.get()), "a frame");
    const std::array<const std::uint8_t*, 4> planes{frame.data};
    const std::array<int, 4> strides{static_cast<int>(3 * frame.width)};
    check(
        sws_scale(converter_.get(), planes.data(), strides.data(), 0, encoder_->height, frame_->data, frame_->linesize),
        "the colour conversion");
    frame_->pts = static_cast<std::int64_t>(index);
    encode(frame_.get());
  }

  void complete() override {
    encode(nullptr);
    check(av_write_trailer(container_.get()), "the index");
    avio_flush(output_.context());
    check(output_.context()->error, "the index");
    output_.file().commit();
  }

  /// A null frame asks for what the encoder still holds.
  void encode(const AVFrame* frame) {
    check(avcodec_send_frame(encoder_.get(), frame), "a frame");
    while (true) {
      const int result = avcodec_receive_packet(encoder_.get(), packet_.get());
      if (result == AVERROR(EAGAIN) || result == AVERROR_EOF) return;
      check(result, "a frame");
      av_packet_rescale_ts(packet_.get(), encoder_->time_base, container_->streams[0]->time_base);
      const int written = av_write_frame(container_.get(), packet_.get());
      av_packet_unref(packet_.get());
      check(written, "a frame");
    }
  }

  void check(int result, const char* what) const {
    output_.check();
    if (result >= 0) return;
    std::array<char, AV_ERROR_MAX_STRING_SIZE> reason{};
    av_strerror(result, reason.data(), reason.size());
    throw FileError(concat(path().string(), ": cannot be written: ", what, ": ", reason.data()));
  }

  Output output_;
  Owned<AVCodecContext> encoder_;
  Owned<SwsContext> converter_;
  Owned<AVFormatContext> container_;
  Owned<AVFrame> frame_;
  Owned<AVPacket> packet_;
};

}  // namespace

bool mp4_available() { return true; }

std::unique_ptr<VideoSink> open_mp4(const std::filesystem::path& path, const VideoFormat& format) {
  if (format.width % 2 != 0 || format.height % 2 != 0)
    throw ConfigError(concat(path.string(), ": an .mp4 has an even width and height, found ", format.width, " x ",
                             format.height, "; write .y4m or PNG frames"));
  av_log_set_level(AV_LOG_QUIET);  // what matters is in the exceptions
  const AVCodec* encoder = avcodec_find_encoder_by_name("libx264");
  if (encoder == nullptr)
    throw ConfigError(
        concat(path.string(), ": this FFmpeg has no encoder libx264; install one that has, or write .y4m"));
  return std::make_unique<Mp4Writer>(path, format, encoder);
}

}  // namespace ebb::examples
