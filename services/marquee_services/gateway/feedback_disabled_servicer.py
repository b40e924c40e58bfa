"""Implements `FeedbackService` in a gateway without a feedback log."""

from __future__ import annotations

from marquee.v1 import feedback_service_pb2 as pb
from marquee.v1 import feedback_service_pb2_grpc
from marquee_services.errors import FeedbackDisabled
from marquee_services.server.interceptor import Context


class DisabledFeedbackServicer(feedback_service_pb2_grpc.FeedbackServiceServicer):
    """Refuses all calls with FEEDBACK_DISABLED."""

    async def RecordFeedback(
        self, request: pb.RecordFeedbackRequest, context: Context
    ) -> pb.RecordFeedbackResponse:
        """Refuses the call."""
        raise FeedbackDisabled

    async def DeleteFeedback(
        self, request: pb.DeleteFeedbackRequest, context: Context
    ) -> pb.DeleteFeedbackResponse:
        """Refuses the call."""
        raise FeedbackDisabled

    async def ForgetUser(
        self, request: pb.ForgetUserRequest, context: Context
    ) -> pb.ForgetUserResponse:
        """Refuses the call."""
        raise FeedbackDisabled

    async def ListFeedback(
        self, request: pb.ListFeedbackRequest, context: Context
    ) -> pb.ListFeedbackResponse:
        """Refuses the call."""
        raise FeedbackDisabled
